"""Renders the proxy's configuration from the one template that `cs up` and deployments share."""

from __future__ import annotations

import json
import re
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
    (404, 12, "CS_NOT_FOUND_METHOD", "no such method: the path of this call"),
    (408, 1, "CS_CALLER_GONE", "the request did not come in time"),
    (413, 3, "CS_VALIDATION_TOO_LARGE", "the request is larger than the public port accepts"),
    (431, 3, "CS_VALIDATION_TOO_LARGE", "the headers are larger than the public port accepts"),
    (503, 14, "CS_SERVICE_UNAVAILABLE", "the service behind the public port does not answer"),
    (504, 4, "CS_SERVICE_UNAVAILABLE", "the service behind the public port did not answer in time"),
)


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
    max_body_bytes: int = 25 * MIB
    """A draft of 16 MiB in base64, and the JSON around it."""
    max_headers_kib: int = 80
    """Above the 64 KiB that the gateway answers for by name."""
    max_connections: int = 10_000
    max_heap_bytes: int = 1024 * MIB
    route_timeout: str = "75s"
    """Above the longest wait for an activation."""


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
        ADMIN_PIPE=settings.admin_pipe,
        LISTEN_HOST=settings.listen_host,
        LISTEN_PORT=settings.listen_port,
        CONTROL_HOST=settings.control[0],
        CONTROL_PORT=settings.control[1],
        GATEWAY_HOST=settings.gateway[0],
        GATEWAY_PORT=settings.gateway[1],
        DESCRIPTORS=settings.descriptors,
        FILTER=folder / "filter.lua",
        MAX_BODY_BYTES=settings.max_body_bytes,
        MAX_HEADERS_KIB=settings.max_headers_kib,
        MAX_CONNECTIONS=settings.max_connections,
        MAX_HEAP_BYTES=settings.max_heap_bytes,
        ROUTE_TIMEOUT=settings.route_timeout,
        SERVICES=", ".join(services),
        PATH_FIELDS=", ".join(fields),
        LOCAL_REPLIES="\n".join(" " * 20 + f"- {json.dumps(_mapper(*reply))}" for reply in _LOCAL_REPLIES),
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


def _mapper(status: int, code: int, reason: str, text: str) -> dict[str, Any]:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "code-sous",
    }
    # Of a gRPC call the proxy makes a gRPC status of its text; a JSON document would only be in the way.
    transcoded = {"header": {"name": "x-cs-transcoded", "present_match": True}}
    not_grpc = {
        "header": {
            "name": "content-type",
            "string_match": {"prefix": "application/grpc"},
            "invert_match": True,
            "treat_missing_header_as_empty": True,
        }
    }
    by_http = {"or_filter": {"filters": [{"header_filter": transcoded}, {"header_filter": not_grpc}]}}
    value = {"default_value": status, "runtime_key": "cs.local_reply"}
    with_status = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
    return {
        "filter": {"and_filter": {"filters": [with_status, by_http]}},
        "body_format_override": {
            "json_format": {"code": code, "message": text or "%LOCAL_REPLY_BODY%", "details": [info]},
        },
    }
