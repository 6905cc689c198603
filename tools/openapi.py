"""The OpenAPI document of the REST surface, from the contracts and the table of errors."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto

from cs_core.names import PATTERNS
from cs_core.rpc.status import TABLE
from tools.openapi_schema import REQUIRED, Contracts, Schema

ROOT: Final = Path(__file__).resolve().parent.parent
_PUBLIC: Final = ("codesous.control.v1", "codesous.gateway.v1")
_ANY_VERB: Final = ("get", "post", "put", "patch", "delete")
_BODYLESS: Final = ("get", "delete")
_REASON: Final = re.compile(r"`(CS_[A-Z_]+)`")
_STATUS: Final = re.compile(r"status (20\d)")
_VARIABLE: Final = re.compile(r"{(\w+)(?:=[^}]*)?}")
# What every call may answer: by the chain around it, or by the proxy before it.
_EVERYWHERE: Final = (
    "CS_AUTHN_TOKEN_MISSING",
    "CS_AUTHZ_ACTION_DENIED",
    "CS_VALIDATION_FIELD",
    "CS_NOT_FOUND_METHOD",
    "CS_VALIDATION_TOO_LARGE",
    "CS_RATE_LIMITED",
    "CS_STORE_UNAVAILABLE",
    "CS_CODEQ_CORRELATION_TIMEOUT",
)
_HTTP_BODY: Final = ".google.api.HttpBody"
_ABOUT: Final = """The REST surface of code-sous, generated from its protobuf contracts. The same calls are served over
gRPC and gRPC-Web on the same port.

JSON is protobuf's: 64 bit integers are text, bytes are base64, durations look like `1.5s`, moments are RFC 3339, enums
are names. A field that is absent has its default. What a request holds beyond its fields is refused.

Every call but this document's takes a bearer token. A call that fails answers a `google.rpc.Status` whose details hold
an `ErrorInfo` with the reason, and a `RequestInfo` with the id that is also in the header `x-request-id`."""


def openapi_document(described: FileDescriptorSet) -> str:
    """The document as JSON.

    Args:
        described: the contracts with what they import and with source information.
    """
    contracts = Contracts(described)
    paths: dict[str, dict[str, Any]] = {}
    tags = []
    for file in described.file:
        if file.package not in _PUBLIC:
            continue
        for service in file.service:
            full = f".{file.package}.{service.name}"
            tags.append({"name": service.name, "description": contracts.comment(full)})
            for method in service.method:
                for verb, path, operation in _operations(contracts, full, method):
                    paths.setdefault(path, {})[verb] = operation
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "code-sous",
            "version": project["version"],
            "summary": project["description"],
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": tags,
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {"Error": _error()},
            "schemas": {"Status": _STATUS_SCHEMA, **dict(sorted(contracts.schemas.items()))},
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _operations(
    contracts: Contracts, service: str, method: MethodDescriptorProto
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    rule: HttpRule = method.options.Extensions[annotations_pb2.http]
    for number, binding in enumerate([rule, *rule.additional_bindings]):
        kind = binding.WhichOneof("pattern")
        if kind is None:
            continue
        template = binding.custom.path if kind == "custom" else getattr(binding, kind)
        for verb in _ANY_VERB if kind == "custom" else (kind,):
            name = f"{service.rpartition('.')[2].removesuffix('Service')}_{method.name}"
            parts = [name, verb if kind == "custom" else "", str(number + 1) if number else ""]
            operation = _operation(contracts, service, method, binding, template, verb)
            operation["operationId"] = "_".join(part for part in parts if part)
            yield verb, _VARIABLE.sub(r"{\1}", template), operation


def _operation(
    contracts: Contracts, service: str, method: MethodDescriptorProto, rule: HttpRule, template: str, verb: str
) -> dict[str, Any]:
    text = contracts.comment(f"{service}.{method.name}")
    in_path = frozenset(_VARIABLE.findall(template))
    request = contracts.message(method.input_type)
    operation: dict[str, Any] = {
        "tags": [service.rpartition(".")[2]],
        "summary": re.split(r"[.:] ", text, maxsplit=1)[0].rstrip(".") + ".",
        "description": text,
        "parameters": [
            {
                "name": field.name,
                "in": "path",
                "required": True,
                "schema": _in_path(field.name, _bare(contracts.field(method.input_type, field))),
                "description": contracts.comment(f"{method.input_type}.{field.name}"),
            }
            for field in request.field
            if field.name in in_path
        ],
    }
    if rule.body == "*":
        operation["requestBody"] = _json(contracts.of_message(method.input_type, without=in_path), required=True)
    elif rule.body:
        field = next(each for each in request.field if each.name == rule.body)
        if field.type_name == _HTTP_BODY:
            if verb not in _BODYLESS:
                operation["requestBody"] = {"content": {"*/*": {"schema": {}}}}
        else:
            operation["requestBody"] = _json(contracts.field(method.input_type, field), required=True)
    if rule.body != "*":
        operation["parameters"] += _query(contracts, method.input_type, in_path | {rule.body})
    operation["responses"] = _responses(contracts, method, rule, text)
    return operation


def _query(contracts: Contracts, message: str, without: frozenset[str], prefix: str = "") -> list[dict[str, Any]]:
    """Query parameters; of a message within, its fields by their paths."""
    found: list[dict[str, Any]] = []
    for field in contracts.message(message).field:
        if field.name in without:
            continue
        schema, text = contracts.field(message, field), contracts.comment(f"{message}.{field.name}")
        if "$ref" in schema and field.type == FieldDescriptorProto.TYPE_MESSAGE:
            found += _query(contracts, field.type_name, frozenset(), f"{prefix}{field.name}.")
            continue
        parameter = {"name": prefix + field.name, "in": "query", "schema": _bare(schema), "description": text}
        if REQUIRED.search(text):
            parameter["required"] = True
        found.append(parameter)
    return found


def _responses(contracts: Contracts, method: MethodDescriptorProto, rule: HttpRule, text: str) -> dict[str, Any]:
    if rule.response_body or method.output_type == _HTTP_BODY:
        return {
            "default": {
                "description": "What the function answered, whatever its status; or an error of the platform.",
                "content": {"*/*": {"schema": {}}},
            }
        }
    schema = contracts.reference(method.output_type)
    if method.server_streaming:
        schema = {"type": "array", "items": schema, "description": "One after the other, as they come."}
    good = {"description": "It is done.", "content": {"application/json": {"schema": schema}}}
    responses: dict[str, Any] = dict.fromkeys(["200", *(found for found in _STATUS.findall(text))], good)
    reasons = [*_EVERYWHERE, *_REASON.findall(text)]
    for status in sorted({str(TABLE[reason].http) for reason in reasons if reason in TABLE}):
        responses[status] = {"$ref": "#/components/responses/Error"}
    return responses


def _in_path(name: str, schema: Schema) -> Schema:
    if name in PATTERNS:
        return {**schema, "pattern": f"^{PATTERNS[name]}$"}
    return {"minLength": 1, **schema} if schema.get("type") == "string" else schema


def _bare(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "description"}


def _json(schema: Schema, *, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _error() -> dict[str, Any]:
    return {
        "description": "It failed; the reason is in the details.",
        "headers": {
            "x-request-id": {"schema": {"type": "string"}, "description": "The call, in logs and to support."},
            "retry-after": {
                "schema": {"type": "string"},
                "description": "Seconds, if trying again can help.",
            },
        },
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}},
    }


_STATUS_SCHEMA: Final[Schema] = {
    "type": "object",
    "description": "A `google.rpc.Status`.",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "integer", "description": "The gRPC code."},
        "message": {"type": "string", "description": "What happened, for people."},
        "details": {
            "type": "array",
            "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
        },
    },
}
