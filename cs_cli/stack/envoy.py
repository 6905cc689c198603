"""Renders the proxy's configuration from the one template that `cs up` and deployments share."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf import descriptor_pb2

MIB: Final = 1024 * 1024
_PUBLIC: Final = ("codesous.control.v1", "codesous.gateway.v1")
_PATH_FIELD: Final = re.compile(r"\{([a-z_]+)")
# What the proxy says by itself: HTTP status, gRPC code, reason, and a text (empty: the proxy's own).
_LOCAL_REPLIES: Final = (
    (400, 3, "CS_VALIDATION_MALFORMED", ""),
    (403, 3, "CS_VALIDATION_MALFORMED", "the public port does not switch protocols"),
    (404, 12, "CS_NOT_FOUND_METHOD", "no such method: the path of this call"),
    (408, 1, "CS_CALLER_GONE", "the request did not come in time"),
    (413, 3, "CS_VALIDATION_TOO_LARGE", "the request is larger than the public port accepts"),
    (426, 3, "CS_VALIDATION_MALFORMED", "the public port speaks HTTP/1.1 and HTTP/2"),
    (431, 3, "CS_VALIDATION_TOO_LARGE", "the headers are larger than the public port accepts"),
    (500, 13, "CS_INTERNAL", "the public port cannot pass this answer on"),
    (502, 13, "CS_INTERNAL", "the service behind the public port did not answer as it should"),
    (503, 14, "CS_SERVICE_UNAVAILABLE", "the service behind the public port went away before it answered"),
    (504, 4, "CS_SERVICE_UNAVAILABLE", "the service behind the public port did not answer in time"),
)
# Response flags of a 503 that no service has seen the request of, so that trying again is safe.
_NOT_SENT: Final = ("UF", "UH", "UO", "NC")
_NOT_SENT_TEXT: Final = "the service behind the public port does not answer"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate, its key, and the authority that the other side must be of (public clients show nothing)."""

    certificate: Path
    key: Path
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What differs from one installation to the next."""

    listen_host: str
    listen_port: int
    admin_pipe: Path
    """Unix socket of the proxy's own administration; there is no port for it."""
    control: tuple[str, int]
    gateway: tuple[str, int]
    descriptors: Path
    filter: Path | None = None
    """Where the proxy finds filter.lua; by default beside the template."""
    openapi: Path | None = None
    """Where the proxy finds openapi.json; by default beside the template."""
    public_tls: TlsFiles | None = None
    """What the public port shows; without it, it speaks plain text."""
    service_tls: TlsFiles | None = None
    """What the proxy shows to the services, and whom it takes for them; without it, it speaks plain text to them."""
    max_body_bytes: int = 17 * MIB // 2
    """An event or a body of 6 MiB in base64, and the JSON around it."""
    max_draft_bytes: int = 24 * MIB
    """A draft of 16 MiB in base64, and the JSON around it."""
    max_answer_bytes: int = 32 * MIB
    """What the services send at most."""
    connection_buffer_bytes: int = MIB
    """What is held of one connection before its sender is told to wait."""
    max_headers_kib: int = 80
    """Above the 64 KiB that the gateway answers for by name."""
    max_connections: int = 10_000
    max_heap_bytes: int = 1024 * MIB
    route_timeout: str = "75s"
    """Above the longest wait for an activation. Of native gRPC, the caller's deadline counts."""
    request_headers_timeout: str = "10s"
    """How long a caller may take over the headers of a request."""
    request_timeout: str = "300s"
    """How long a caller may take over a whole request. Of native gRPC, the caller's deadline counts."""
    stream_idle_timeout: str = "3600s"
    """How long a stream, or a native gRPC call without deadline, may be silent."""


def template_folder() -> Path:
    """Where the template and the filter are: in an installed wheel, or in the source tree."""
    package = Path(__file__).parents[1]
    installed = package / "deploy" / "envoy"
    return installed if installed.is_dir() else package.parent / "deploy" / "envoy"


def render(settings: EdgeSettings) -> str:
    """The proxy's configuration as YAML."""
    folder = template_folder()
    services, fields = _contracts(settings.descriptors)
    return Template((folder / "envoy.yaml.tmpl").read_text(encoding="utf-8")).substitute(
        ADMIN_PIPE=_quoted(settings.admin_pipe),
        LISTEN_HOST=_quoted(settings.listen_host),
        LISTEN_PORT=settings.listen_port,
        CONTROL_HOST=_quoted(settings.control[0]),
        CONTROL_PORT=settings.control[1],
        GATEWAY_HOST=_quoted(settings.gateway[0]),
        GATEWAY_PORT=settings.gateway[1],
        PUBLIC_TLS=_tls("DownstreamTlsContext", settings.public_tls, ("h2", "http/1.1")),
        SERVICE_TLS=_tls("UpstreamTlsContext", settings.service_tls, ("h2",)),
        DESCRIPTORS=_quoted(settings.descriptors),
        FILTER=_quoted(settings.filter or folder / "filter.lua"),
        OPENAPI=_quoted(settings.openapi or folder / "openapi.json"),
        REQUEST_HEADERS_TIMEOUT=settings.request_headers_timeout,
        REQUEST_TIMEOUT=settings.request_timeout,
        MAX_BODY_BYTES=settings.max_body_bytes,
        MAX_DRAFT_BYTES=settings.max_draft_bytes,
        MAX_ANSWER_BYTES=settings.max_answer_bytes,
        CONNECTION_BUFFER_BYTES=settings.connection_buffer_bytes,
        MAX_HEADERS_KIB=settings.max_headers_kib,
        MAX_CONNECTIONS=settings.max_connections,
        MAX_HEAP_BYTES=settings.max_heap_bytes,
        ROUTE_TIMEOUT=settings.route_timeout,
        STREAM_IDLE_TIMEOUT=settings.stream_idle_timeout,
        SERVICES=", ".join(services),
        PATH_FIELDS=", ".join(fields),
        LOCAL_REPLIES="\n".join(" " * 20 + f"- {json.dumps(mapper)}" for mapper in _mappers()),
    )


def _quoted(value: Path | str) -> str:
    # JSON's strings are YAML's: whatever a path holds, it stays one value.
    return json.dumps(str(value), ensure_ascii=False)


def _tls(kind: str, files: TlsFiles | None, protocols: Sequence[str]) -> str:
    """The transport socket as JSON; null is plain text."""
    if files is None:
        return "null"
    context: dict[str, Any] = {
        "alpn_protocols": list(protocols),
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [
            {"certificate_chain": {"filename": str(files.certificate)}, "private_key": {"filename": str(files.key)}}
        ],
    }
    if files.authority is not None:
        context["validation_context"] = {"trusted_ca": {"filename": str(files.authority)}}
    name = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"
    return json.dumps(
        {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": name, "common_tls_context": context},
        }
    )


def _contracts(descriptors: Path) -> tuple[list[str], list[str]]:
    """The public services, and every field that a path of theirs binds."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    services: list[str] = []
    fields = {"body"}
    for file in files.file:
        if file.package not in _PUBLIC:
            continue
        for service in file.service:
            services.append(f"{file.package}.{service.name}")
            for method in service.method:
                fields.update(_bound(method.options.Extensions[annotations_pb2.http]))
    return services, sorted(fields)


def _bound(rule: HttpRule) -> set[str]:
    paths = [rule.get, rule.put, rule.post, rule.delete, rule.patch, rule.custom.path]
    found = {field for path in paths for field in _PATH_FIELD.findall(path)}
    for other in rule.additional_bindings:
        found |= _bound(other)
    return found


def _mappers() -> list[dict[str, Any]]:
    """How the proxy's own answers look; the first that fits an answer makes it."""
    again = _mapper(503, 14, "CS_SERVICE_UNAVAILABLE", _NOT_SENT_TEXT, _NOT_SENT)
    return [*again, *(mapper for reply in _LOCAL_REPLIES for mapper in _mapper(*reply))]


def _mapper(status: int, code: int, reason: str, text: str, flags: Sequence[str] = ()) -> list[dict[str, Any]]:
    # Of a gRPC call the proxy makes a gRPC status of its text; a JSON document would only be in the way. After the
    # transcoder every content-type is one of gRPC, before the filter no header is there.
    transcoded = {"header_filter": {"header": {"name": "x-cs-transcoded", "present_match": True}}}
    by_http = {"or_filter": {"filters": [transcoded, {"header_filter": {"header": _grpc_content(invert_match=True)}}]}}
    value = {"default_value": status, "runtime_key": "cs.local_reply"}
    fits: list[dict[str, Any]] = [{"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}]
    details: list[dict[str, str]] = [_detail("ErrorInfo", reason=reason, domain="code-sous")]
    headers = [_header("x-request-id", "%REQ(X-REQUEST-ID)%")]
    if flags:
        fits.append({"response_flag_filter": {"flags": list(flags)}})
        details.append(_detail("RetryInfo", retry_delay="1s"))
        headers.append(_header("retry-after", "1"))
    message = text or "%LOCAL_REPLY_BODY%"
    return [
        {
            "filter": {"and_filter": {"filters": [*fits, by_http]}},
            "headers_to_add": headers,
            "body_format_override": {"json_format": {"code": code, "message": message, "details": details}},
        },
        {
            "filter": {"and_filter": {"filters": fits}} if flags else fits[0],
            "body_format_override": {"text_format_source": {"inline_string": message}},
        },
    ]


def _grpc_content(**also: bool) -> dict[str, Any]:
    # To the letter, as the proxy's own rule and that of the filter for gRPC-Web are.
    kinds = {"safe_regex": {"regex": r"application/grpc(\+.*|-web(-text)?(\+proto)?)?"}}
    return {"name": "content-type", "string_match": kinds, "treat_missing_header_as_empty": True, **also}


def _detail(kind: str, **fields: str) -> dict[str, str]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
