"""What user code finds: the host's calls and the names of the web platform.

The one source of it: a call that is not listed here is refused (`calls`), what a call needs follows from its entry
(`capability`), a test compares the lists with what a cell really has, and docs/reference/host-api.md is generated
from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from codesous.type.v1.capabilities_pb2 import KvOperation

Area = Literal["kv", "codeq", "http", "cadence", "secrets"]


@dataclass(frozen=True, slots=True)
class HostCall:
    """A call that leaves the cell. `area` and `operation` make its name on the wire, for example `kv.get`."""

    area: Area
    operation: str
    usage: str
    gives: str
    needs: str
    limits: str
    reasons: tuple[str, ...] = ()
    """Reasons of its own, beside those that every call can have."""
    kv: KvOperation.ValueType = KvOperation.KV_OPERATION_UNSPECIFIED
    """The operation that the capability `kv` must hold."""

    @property
    def method(self) -> str:
        """Its name on the wire."""
        return f"{self.area}.{self.operation}"


@dataclass(frozen=True, slots=True)
class Name:
    """A name that user code finds and that needs no host call."""

    name: str
    meaning: str


def _kv(operation: str, usage: str, gives: str, limits: str, *reasons: str) -> HostCall:
    granted = KvOperation.Value(f"KV_OPERATION_{operation.upper()}")
    what = "prefix" if operation == "list" else "key"
    needs = f"`kv` with the operation `{operation}` and a prefix of the {what}"
    return HostCall("kv", operation, usage, gives, needs, limits, (*reasons, "CS_STORE_UNAVAILABLE"), granted)


_QUOTA: Final = "CS_RUNTIME_QUOTA_EXCEEDED"
_KEY: Final = "key: 1 to 512 bytes"

_CALLS: Final = (
    _kv("get", "cs.kv.get(key)", "The value, or `null` when there is none.", _KEY),
    _kv(
        "set",
        "cs.kv.set(key, value, {ttl}?)",
        "`null`. The value is anything that is JSON; it is kept for `ttl` seconds, or for good.",
        f"{_KEY}; value: `limits.kv_value_bytes` of JSON; ttl: 1 ms to 10 years; the tenant's quotas "
        "`limits.kv_tenant_keys` and `limits.kv_tenant_bytes`",
        _QUOTA,
        "CS_VALIDATION_TOO_LARGE",
    ),
    _kv("del", "cs.kv.del(key)", "Whether there was a value.", _KEY),
    _kv(
        "incr",
        "cs.kv.incr(key, by = 1)",
        "The new value of the counter, which begins at 0. Its time to live stays.",
        f"{_KEY}; by and value: integers within ±(2^53 - 1); the tenant's quotas",
        _QUOTA,
    ),
    _kv(
        "list",
        "cs.kv.list(prefix, {limit, after}?)",
        "The keys that begin with `prefix`, in the order of their bytes, behind the key `after`.",
        "limit: 1 to 1,000, 100 unless told",
    ),
    HostCall(
        "codeq",
        "publish",
        "cs.codeq.publish(topic, payload, {key, delay}?)",
        "`{messageId}`, when the message is stored. Messages of one `key` keep their order, unless delayed.",
        "`codeq` with the topic, or with its beginning and `*`",
        "topic: `[a-z][a-z0-9_.-]{0,126}`, never `cs` or `cs.*`; payload: `limits.message_bytes` of JSON; "
        "key: 256 bytes; delay: 0 s to 7 days; messages of a topic: `limits.topic_messages`",
        ("CS_QUEUE_FULL", "CS_VALIDATION_TOO_LARGE", "CS_CODEQ_UNAVAILABLE"),
    ),
    HostCall(
        "http",
        "fetch",
        "fetch(url, {method, headers, body, redirect, signal}?), cs.http.fetch(...)",
        "A `Response`.",
        "`http` with the host, or with `*.` and a domain above it, at each redirect too",
        "`http` and `https`; only addresses of the public internet; the capability's `timeout`; "
        "the settings of `[egress]`",
        ("CS_RUNTIME_FETCH_FAILED",),
    ),
    HostCall(
        "http",
        "abort",
        "AbortController.abort(), AbortSignal.timeout(ms)",
        "Ends a fetch that was given the signal.",
        "nothing more",
        "",
    ),
    HostCall(
        "cadence",
        "heartbeat",
        "cs.cadence.heartbeat(details)",
        "`null`. More than 2 a second are put together: the last details are sent.",
        "an activation by a Cadence task",
        "details: `limits.heartbeat_bytes` of JSON",
        ("CS_VALIDATION_TOO_LARGE", "CS_CODEQ_UNAVAILABLE"),
    ),
    HostCall(
        "secrets",
        "get",
        "cs.secrets.get(name)",
        "The value, as text. Logs, results and errors of the version show `[redacted]` in its place from then on.",
        "`secrets` with the name",
        "value: 64 KiB",
        ("CS_NOT_FOUND_SECRET", "CS_SECRETS_UNAVAILABLE"),
    ),
)

CALLS: Final[Mapping[str, HostCall]] = {call.method: call for call in _CALLS}
"""Every host call, by its name on the wire."""

COMMON_REASONS: Final = (
    ("CS_RUNTIME_CAPABILITY_DENIED", "the version's capabilities do not hold what was asked; the message names both"),
    ("CS_VALIDATION_FIELD", "an argument breaks a rule; the message names it"),
    ("CS_VALIDATION_TOO_LARGE", "the arguments are over 1 MiB of JSON"),
    ("CS_RATE_LIMITED", "too many calls of the activation, or fetches of the tenant, are in flight"),
)
"""What every call can reject with, and when."""

INSIDE: Final = (
    Name("cs.env.get(name)", "A value of the version's `env`, or `undefined`."),
    Name("cs.log.debug(...), .info, .warn, .error", "Writes a line to the activation's log."),
    Name("console.log(...), .debug, .info, .warn, .error, .trace, .assert", "The same, as code expects it."),
)
"""What is answered inside of the cell."""

WEB: Final = (
    Name("AbortController", "`abort(reason)`, `signal`."),
    Name(
        "AbortSignal",
        "`aborted`, `reason`, `onabort`, `addEventListener('abort')`; `AbortSignal.abort`, `.timeout`, `.any`.",
    ),
    Name("atob", "Base64 to text of bytes."),
    Name("btoa", "Text of bytes to base64."),
    Name("clearInterval", "Ends `setInterval`."),
    Name("clearTimeout", "Ends `setTimeout`."),
    Name("console", "Writes to the activation's log."),
    Name("crypto", "`randomUUID`, `getRandomValues`, `subtle.digest` (SHA-1, SHA-256, SHA-384, SHA-512). No keys."),
    Name("DOMException", "As the other names throw it."),
    Name("fetch", "See above."),
    Name("Headers", "All of it."),
    Name("performance", "`now`, `timeOrigin`."),
    Name("queueMicrotask", "All of it."),
    Name(
        "Request",
        "`url`, `method`, `headers`, `redirect`, `signal`, body as text, JSON or bytes, `clone`. No streams.",
    ),
    Name(
        "Response",
        "`status`, `statusText`, `ok`, `redirected`, `url`, `type`, `headers`, body as text, JSON or bytes, `clone`, "
        "`Response.json`, `.error`, `.redirect`. No streams.",
    ),
    Name("setInterval", "All of it."),
    Name("setTimeout", "All of it."),
    Name("structuredClone", "Without `transfer`."),
    Name("TextDecoder", "UTF-8."),
    Name("TextEncoder", "All of it."),
    Name("URL", "Host names in ASCII only; `canParse`, `parse`."),
    Name("URLSearchParams", "All of it."),
)
"""Names of the web platform, beside those of the language itself."""
