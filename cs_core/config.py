"""The one settings tree: a TOML file, then the environment on top of it; unknown keys are refused in both.

The environment variable of a setting is `CS_<SECTION>__<KEY>`, for example `CS_STORE__URL`. Durations are in seconds,
sizes in bytes.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic import ValidationError as PydanticError

from cs_core.iam.grants import parse_grant

_PREFIX = "CS_"
KIB = 1024
MIB = 1024 * 1024


class SettingsError(Exception):
    """The settings cannot be used; the message names each key and where it stands."""


class Section(BaseModel):
    """A part of the tree: fixed once it is read, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(Section):
    """The store: any server of the Redis protocol."""

    url: str = Field("redis://127.0.0.1:6379/0", description="Where the store is: redis://, rediss:// or unix://.")
    partitions: int = Field(16, ge=1, le=1024, description="Partitions of the installation; fixed once it is made.")
    timeout: float = Field(2.0, gt=0, le=60, description="Longest wait for one command, in seconds.")


class CodeqSettings(Section):
    """The queue."""

    driver: Literal["kv"] = Field("kv", description="Driver: kv runs on the store.")
    lease: float = Field(15.0, gt=0, le=900, description="Length of a delivery's lease, in seconds.")
    poll_interval: float = Field(0.2, gt=0, le=10, description="Slow poll that covers a lost bell, in seconds.")
    max_deliveries: int = Field(3, ge=1, le=100, description="Runs that may crash before a message is given up.")
    dead_letter_ttl: float = Field(1_209_600.0, gt=0, description="Life of a dead letter, in seconds.")


class IamSettings(Section):
    """Identity and authorisation."""

    mode: Literal["jwks", "introspection"] = Field(
        "jwks", description="How tokens are verified: here, by the issuer's keys, or by asking the issuer about each."
    )
    issuer: str = Field("https://dev.code-sous.invalid", description="Issuer that tokens must name.")
    audience: str = Field("code-sous", description="Audience that tokens must name, and no other beside it.")
    jwks_url: str = Field("", description="Where the keys are: file://, http:// or https://.")
    jwks_refresh: float = Field(60.0, gt=0, description="Shortest time between two fetches of the keys, in seconds.")
    jwks_max_age: float = Field(300.0, gt=0, description="Age at which the keys are fetched again, in seconds.")
    introspection_url: str = Field("", description="Where the issuer is asked about tokens: http:// or https://.")
    introspection_style: Literal["rfc7662", "lookup"] = Field(
        "rfc7662", description="How it is asked: by a form, or by JSON with an API key as Tikti's accounts/lookup."
    )
    introspection_client: str = Field("", description="Client id for basic authentication there. Empty: none is used.")
    introspection_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret of that client, or without one the bearer token (rfc7662) or API key (lookup).",
    )
    introspection_ttl: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Longest time that an answer is believed, in seconds: a revoked token's last ones.",
    )
    introspection_concurrency: int = Field(32, ge=1, le=1024, description="Questions to the issuer at once.")
    leeway: float = Field(5.0, ge=0, le=300, description="Clock difference that is forgiven, in seconds.")
    token_cache: int = Field(4096, ge=0, description="Verified tokens that are remembered until they expire.")
    role_scope_prefix: str = Field(
        "", description="Scopes that begin so are roles, as `role:` makes of `role:viewer`. Empty: no scope is a role."
    )
    tenants: dict[str, str] = Field(
        default_factory=dict, description="Tenant by the `tid` of a token, where the issuer calls it otherwise."
    )
    role_actions: dict[str, list[str]] = Field(
        default_factory=lambda: {
            "admin": ["cs:*"],
            "developer": [
                *(f"cs:function:{verb}" for verb in ("create", "read", "upload", "publish", "delete", "undelete")),
                *("cs:alias:*", "cs:activation:*", "cs:schedule:*", "cs:worker:*"),
            ],
            "viewer": ["cs:*:read"],
            "*": ["cs:function:invoke", "cs:access:explain"],
        },
        description="What roles may do: `ACTION` or `ACTION on cs:TENANT:NAMESPACE:KIND/NAME`, with `*` for any text"
        " and `{tenant}` for the caller's own. The role `*` is every authenticated principal.",
    )

    capability_gate: Literal["enforce", "report"] = Field(
        "enforce",
        description="What happens when an alias would newly reach something and the caller may not `cs:function:grant`:"
        " the move is refused, or it happens and is reported.",
    )

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.mode == "introspection" and urlsplit(self.introspection_url).scheme not in ("http", "https"):
            raise ValueError("mode introspection needs introspection_url, http:// or https://")
        return self

    @field_validator("role_actions")
    @classmethod
    def _check_role_actions(cls, given: dict[str, list[str]]) -> dict[str, list[str]]:
        for entries in given.values():
            for entry in entries:
                parse_grant(entry)
        return given


class LimitSettings(Section):
    """Every limit of the platform."""

    bundle_bytes: int = Field(16 * MIB, gt=0, description="Canonical bundle, in bytes.")
    bundle_files: int = Field(1000, gt=0, description="Files in a bundle.")
    draft_ttl: float = Field(86_400.0, gt=0, description="Life of a draft, in seconds.")
    activation_ttl: float = Field(604_800.0, gt=0, description="Life of an ended activation's record, in seconds.")
    http_body_bytes: int = Field(6 * MIB, gt=0, description="Body or event of an invocation, in bytes.")
    http_header_bytes: int = Field(64 * KIB, gt=0, description="Headers of a web request, in bytes.")
    http_query_bytes: int = Field(16 * KIB, gt=0, description="Query string of a web request, in bytes.")
    result_bytes: int = Field(256 * KIB, gt=0, description="Result of a function, in bytes.")
    error_bytes: int = Field(64 * KIB, gt=0, description="Error of a function, in bytes.")
    stack_bytes: int = Field(8 * KIB, gt=0, description="Stack within an error, in bytes.")
    log_bytes: int = Field(MIB, gt=0, description="Log lines of one activation, in bytes.")
    timeout_default: float = Field(3.0, gt=0, description="Time limit by HTTP and API when none is set, in seconds.")
    timeout_max: float = Field(30.0, gt=0, description="Longest time limit by HTTP and API, in seconds.")
    worker_timeout_default: float = Field(30.0, gt=0, description="Time limit by schedule and Cadence, in seconds.")
    worker_timeout_max: float = Field(900.0, gt=0, description="Longest limit by schedule and Cadence, in seconds.")
    tenant_inflight: int = Field(
        20_000, gt=0, description="Activations of one tenant that were accepted and have not ended."
    )
    tenant_rps: int = Field(1000, gt=0, description="Requests per second of one tenant, in the installation.")
    tenant_waiting: int = Field(
        256,
        gt=0,
        description="Callers of one tenant that wait for a result at once, in the installation. Rule of size: no more "
        "than the permits of its invokers times the time limit of a run over the time that a run takes; the last of "
        "more callers than that waits past its time limit.",
    )
    gateway_waiting: int = Field(1024, gt=0, description="Callers that wait for a result at once in one gateway.")
    queue_depth: int = Field(
        50_000, gt=0, description="Messages that may wait in one partition of the queue before more are refused."
    )
    memory_mb_default: int = Field(128, gt=0, description="Memory limit when none is set, in MiB.")
    memory_mb_min: int = Field(16, gt=0, description="Smallest memory limit, in MiB.")
    memory_mb_max: int = Field(4096, gt=0, description="Largest memory limit, in MiB.")
    max_concurrency: int = Field(100, gt=0, description="Largest concurrency of a version, and its default.")
    kv_value_bytes: int = Field(256 * KIB, gt=0, description="Value in the tenant's key-value store, in bytes.")
    kv_tenant_keys: int = Field(100_000, gt=0, description="Keys in the key-value store of one tenant.")
    kv_tenant_bytes: int = Field(64 * MIB, gt=0, description="Keys and values of one tenant together, in bytes.")
    message_bytes: int = Field(
        256 * KIB, gt=0, le=512 * KIB, description="Payload of a message that a function publishes, in bytes."
    )
    topic_messages: int = Field(
        100_000, gt=0, description="Messages on one topic of a tenant; the limit may be passed a little."
    )
    heartbeat_bytes: int = Field(64 * KIB, gt=0, description="Details of a heartbeat, in bytes.")
    async_age: float = Field(21_600.0, gt=0, description="Longest stay of an async request in the queue, in seconds.")
    wait_default: float = Field(30.0, gt=0, description="Wait for an activation when the caller sets none, in seconds.")
    wait_max: float = Field(60.0, gt=0, description="Longest wait for an activation, in seconds.")
    watch_length: float = Field(
        3600.0, gt=0, description="Longest watch of mutations before its caller comes back with a cursor, in seconds."
    )
    tenant_watches: int = Field(64, gt=0, description="Watches of mutations by one tenant in one process.")
    correlation_slack: float = Field(0.25, ge=0, description="Wait for a result beyond the time limit, in seconds.")


class RpcSettings(Section):
    """Every gRPC server and channel."""

    host: str = Field("127.0.0.1", description="Address that services listen on.")
    tls_certificate: str = Field("", description="File of the services' certificate (PEM). Empty: no TLS.")
    tls_key: str = Field("", description="File of its private key (PEM).")
    tls_client_ca: str = Field("", description="File of the authority (PEM) whose clients are let in, and no others.")
    metrics_host: str = Field("127.0.0.1", description="Address that /metrics listens on, where it has a port.")
    max_message_bytes: int = Field(32 * MIB, gt=0, description="Largest message, in bytes.")
    max_metadata_bytes: int = Field(96 * KIB, gt=0, description="Largest metadata, in bytes.")
    drain_grace: float = Field(10.0, ge=0, description="Wait for calls in flight when stopping, in seconds.")
    readiness_interval: float = Field(0.5, gt=0, description="Time between two readiness probes, in seconds.")

    @model_validator(mode="after")
    def _tls_is_mutual(self) -> RpcSettings:
        if len({bool(path) for path in (self.tls_certificate, self.tls_key, self.tls_client_ca)}) > 1:
            raise ValueError("tls_certificate, tls_key and tls_client_ca are set together or not at all")
        return self


class ProcessSettings(Section):
    """Ports of one process."""

    port: int = Field(0, ge=0, le=65_535, description="gRPC port; 0 takes a free one.")
    metrics_port: int = Field(0, ge=0, le=65_535, description="Port of /metrics; 0 turns it off.")


class SchedulerSettings(ProcessSettings):
    """The scheduler, and the shards of schedules that the control plane hands them to."""

    shards: int = Field(16, ge=1, le=1024, description="Shards of the installation; fixed once it is made.")
    lease: float = Field(5.0, ge=0.2, le=300, description="Length of a shard's lease, in seconds.")
    poll_interval: float = Field(0.1, gt=0, le=1, description="Time between two looks at what is due, in seconds.")
    concurrency: int = Field(64, ge=1, le=1024, description="Schedules of one shard that are handled at once.")
    history: int = Field(250, ge=1, le=10_000, description="Past ticks of one schedule that are kept.")


class InvokerSettings(ProcessSettings):
    """The invoker pool."""

    concurrency: int = Field(64, ge=1, le=10_000, description="Activations in flight in one invoker.")
    partition_share: float = Field(
        0.25, gt=0, le=1, description="Part of the concurrency that one partition of the queue may take."
    )
    activation_lease: float = Field(10.0, gt=0, le=900, description="Length of an activation's lease, in seconds.")
    bundle_cache_count: int = Field(512, ge=1, description="Bundles kept in memory.")
    bundle_cache_bytes: int = Field(256 * MIB, ge=MIB, description="Bytes of bundles kept in memory.")


class CadenceSettings(Section):
    """The Cadence server whose activity tasks worker bindings serve."""

    target: str = Field("", description="Frontend's gRPC address, host:port; empty: none, and bindings fail.")
    tls: bool = Field(False, description="Speak TLS, trusting the system's certificate authorities.")
    caller: str = Field("code-sous", description="Name of the caller in the headers of each call.")
    poll_timeout: float = Field(60.0, gt=1, le=300, description="Length of a long poll, in seconds.")
    call_timeout: float = Field(10.0, gt=0, le=60, description="Longest wait for the answer of a call, in seconds.")
    polls: int = Field(2, ge=1, le=64, description="Long polls of one worker binding at once, in one poller.")
    heartbeat_interval: float = Field(
        0.5, gt=0, le=60, description="Shortest time between two heartbeats of one task, in seconds."
    )
    member_life: float = Field(
        6.0, gt=0.5, le=60, description="Silence after which a poller counts as gone and loses its tasks, in seconds."
    )
    late_answers: float = Field(
        60.0, ge=0, description="How long an answer is tried after Cadence gave the task up, in seconds."
    )


class SandboxSettings(Section):
    """Cells."""

    cells: int = Field(8, ge=1, le=1024, description="Cells of one invoker.")
    cells_per_tenant: int = Field(4, ge=1, le=1024, description="Cells of one tenant in one invoker.")
    runs_per_cell: int = Field(
        64,
        ge=1,
        le=1024,
        description="Activations that may overlap in one cell while they wait; 1 turns overlapping off.",
    )
    spares: int = Field(1, ge=0, le=64, description="Jailed cells of no tenant that are kept ready.")
    idle_ttl: float = Field(60.0, gt=0, description="Life of an idle cell, in seconds.")
    require_jail: bool = Field(True, description="Refuse to run code when a mandatory layer of the jail is missing.")


class EgressSettings(Section):
    """The way out: the fetches of functions."""

    allow_networks: list[str] = Field(
        default_factory=list,
        description="Networks that fetches may reach although they are not public, for example `127.0.0.1/32`. "
        "Dangerous: it opens them to every tenant whose version names a host there. For development only.",
    )
    block_networks: list[str] = Field(
        default_factory=list, description="Public networks that no fetch may reach: the operator's own."
    )
    tenant_fetches: int = Field(256, ge=1, description="Fetches of one tenant in flight in one invoker.")
    response_bytes: int = Field(
        4 * MIB, gt=0, le=8 * MIB, description="Body of an answer, before and after decompression, in bytes."
    )
    ca_file: str = Field("", description="Certificates (PEM) that are trusted beside the usual ones.")

    @field_validator("allow_networks", "block_networks")
    @classmethod
    def _check_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            ip_network(network)
        return networks


class SecretSettings(Section):
    """Where the secrets of functions come from."""

    provider: Literal["none", "file", "store"] = Field(
        "none", description="Source: none, file, or store (written by `SecretService`, kept encrypted)."
    )
    path: str = Field(
        "",
        description="For `file`: a folder of `<tenant>/<name>` and `<tenant>/<namespace>/<name>`, or one file of TOML "
        "or JSON.",
    )
    key_file: str = Field(
        "",
        description="For `store`: file with a key a line, 32 bytes in base64, the newest first; the same everywhere.",
    )

    @model_validator(mode="after")
    def _check_key_file(self) -> SecretSettings:
        if self.provider == "store" and not self.key_file:
            raise ValueError("secrets.key_file is required for the provider `store`")
        return self


class LogSettings(Section):
    """Logs of the services."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity that is written.")
    format: Literal["json", "console"] = Field("json", description="One JSON object a line, or text for people.")


class TelemetrySettings(Section):
    """Traces. Their ids are always handed on and logged; spans are sent where a collector is named."""

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Collector of spans, by OTLP over gRPC: http://HOST:4317, or https:// with TLS. Empty: none. "
        "Headers and certificates are taken from the variables OTEL_EXPORTER_OTLP_* of the environment.",
    )
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces that begin here whose spans are sent. A caller's trace is sent if the caller "
        "records it.",
    )
    export_interval: float = Field(
        5.0, gt=0, le=300, description="Longest wait of a span before it is sent, in seconds."
    )


class AuditSettings(Section):
    """The ledger of mutations, and the relay to it. The mutation log itself is always written."""

    driver: Literal["file", "ledgerdb", "none"] = Field(
        "file", description="Ledger driver: hash-chained files, a ledgerDB repository, or none."
    )
    name: str = Field(
        "main",
        pattern=r"^[a-z][a-z0-9_-]{0,63}$",
        description="Name under which the store remembers the ledger's head; another name begins another ledger.",
    )
    path: str = Field(".data/ledger", min_length=1, description="Folder of the files, or the repository of ledgerDB.")
    file_bytes: int = Field(64 * MIB, ge=KIB, description="Size at which the next file of the ledger is begun.")
    ledgerdb_command: str = Field("ledgerdb", min_length=1, description="The ledgerdb executable.")
    timeout: float = Field(30.0, gt=0, le=600, description="Longest wait for one command of ledgerdb, in seconds.")
    retention: float = Field(
        2_592_000.0, ge=0, description="Time that the mutation log keeps what was relayed at least, in seconds."
    )
    batch: int = Field(200, ge=1, le=5_000, description="Mutations of a tenant that are relayed at once.")
    lease: float = Field(10.0, ge=0.5, le=300, description="Length of the relay's lease, in seconds.")
    poll_interval: float = Field(2.0, gt=0, le=60, description="Slow poll that covers a lost bell, in seconds.")


class Settings(Section):
    """The whole tree."""

    store: StoreSettings = Field(default_factory=StoreSettings)
    codeq: CodeqSettings = Field(default_factory=CodeqSettings)
    iam: IamSettings = Field(default_factory=IamSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    rpc: RpcSettings = Field(default_factory=RpcSettings)
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    egress: EgressSettings = Field(default_factory=EgressSettings)
    secrets: SecretSettings = Field(default_factory=SecretSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    control: ProcessSettings = Field(default_factory=ProcessSettings)
    gateway: ProcessSettings = Field(default_factory=ProcessSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    poller: ProcessSettings = Field(default_factory=ProcessSettings)
    invoker: InvokerSettings = Field(default_factory=InvokerSettings)
    cadence: CadenceSettings = Field(default_factory=CadenceSettings)

    def redacted(self) -> dict[str, Any]:
        """The tree as plain data, secrets and passwords in addresses hidden."""
        tree: dict[str, Any] = self.model_dump(mode="json")
        tree["store"]["url"] = _without_password(self.store.url)
        return tree


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = parts.username or ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}"))


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read `CS_<SECTION>__<KEY>` variables; values that are TOML (numbers, booleans, lists) are read as such."""
    tree: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        if not name.startswith(_PREFIX):
            continue
        section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
        model = Settings.model_fields.get(section)
        known = model is not None and separator and key in _section_fields(section)
        if not known:
            raise SettingsError(f"environment: {name} is no setting")
        tree.setdefault(section, {})[key] = _parse(text)
    return tree


def _section_fields(section: str) -> Mapping[str, Any]:
    annotation = Settings.model_fields[section].annotation
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, Section) else {}


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def load_settings(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: defaults, then the file, then the environment (default: this process's).

    Raises:
        SettingsError: the file cannot be read, a key is unknown, or a value breaks its rule.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
    overrides = _from_environment(os.environ if environment is None else environment)
    for section, values in overrides.items():
        tree[section] = {**tree.get(section, {}), **values}
    try:
        return Settings.model_validate(tree)
    except PydanticError as error:
        raise SettingsError(_explain(error, path, overrides)) from error


def _explain(error: PydanticError, path: Path | None, overrides: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for found in error.errors(include_url=False, include_input=False):
        place = [str(part) for part in found["loc"]]
        section, key = place[0], place[1] if len(place) > 1 else ""
        origin = f"CS_{section}__{key}".upper() if key in overrides.get(section, {}) else str(path or "settings")
        lines.append(f"{origin}: {'.'.join(place)}: {found['msg']}")
    return "\n".join(lines)


__all__ = ["SecretStr", "Settings", "SettingsError", "load_settings"]
