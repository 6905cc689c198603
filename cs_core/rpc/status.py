"""The one table from error reasons to gRPC codes and HTTP statuses, and errors as `google.rpc.Status`.

The whole status travels in response metadata, and many clients refuse metadata over 8 KiB. So everything in it is
capped: what does not fit is left out and the answer says how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from cs_core.errors import CodeSousError, RuntimeFailure

DOMAIN: Final = "code-sous"
INTERNAL: Final = "CS_INTERNAL"
MAX_MESSAGE_BYTES: Final = 512
MAX_TEXT_CHARS: Final = 200
MAX_VIOLATIONS: Final = 50
MAX_STATUS_BYTES: Final = 4096

_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one reason looks from outside."""

    code: grpc.StatusCode
    http: int


_NOT_FOUND = Mapping(_Code.NOT_FOUND, 404)
_BAD = Mapping(_Code.INVALID_ARGUMENT, 400)
_DENIED = Mapping(_Code.PERMISSION_DENIED, 403)
_UNKNOWN_CALLER = Mapping(_Code.UNAUTHENTICATED, 401)
_AWAY = Mapping(_Code.UNAVAILABLE, 503)
_OVER = Mapping(_Code.RESOURCE_EXHAUSTED, 429)
_FUNCTION_FAILED = Mapping(_Code.UNKNOWN, 500)

TABLE: Final[dict[str, Mapping]] = {
    "CS_AUTHN_TOKEN_MISSING": _UNKNOWN_CALLER,
    "CS_AUTHN_TOKEN_INVALID": _UNKNOWN_CALLER,
    "CS_AUTHN_TOKEN_EXPIRED": _UNKNOWN_CALLER,
    "CS_AUTHN_UNAVAILABLE": _AWAY,
    "CS_AUTHZ_TENANT_MISMATCH": _DENIED,
    "CS_AUTHZ_ACTION_DENIED": _DENIED,
    "CS_AUTHZ_ROLE_MISSING": _DENIED,
    "CS_VALIDATION_FIELD": _BAD,
    "CS_VALIDATION_MALFORMED": _BAD,
    "CS_VALIDATION_MANIFEST": _BAD,
    "CS_VALIDATION_CONFIG": _BAD,
    # Not RESOURCE_EXHAUSTED: the same request will never fit, and clients retry that code.
    "CS_VALIDATION_TOO_LARGE": Mapping(_Code.INVALID_ARGUMENT, 413),
    "CS_VALIDATION_PAGE_TOKEN": _BAD,
    "CS_NOT_FOUND_FUNCTION": _NOT_FOUND,
    "CS_NOT_FOUND_DRAFT": _NOT_FOUND,
    "CS_NOT_FOUND_VERSION": _NOT_FOUND,
    "CS_NOT_FOUND_ALIAS": _NOT_FOUND,
    "CS_NOT_FOUND_ACTIVATION": _NOT_FOUND,
    "CS_NOT_FOUND_SCHEDULE": _NOT_FOUND,
    "CS_NOT_FOUND_WORKER": _NOT_FOUND,
    "CS_NOT_FOUND_DEAD_LETTER": _NOT_FOUND,
    "CS_NOT_FOUND_SECRET": _NOT_FOUND,
    # The code that gRPC itself gives; clients tell "no such method" by it.
    "CS_NOT_FOUND_METHOD": Mapping(_Code.UNIMPLEMENTED, 404),
    "CS_CONFLICT_EXISTS": Mapping(_Code.ALREADY_EXISTS, 409),
    "CS_CONFLICT_ALIAS_VERSION": Mapping(_Code.ABORTED, 409),
    "CS_CONFLICT_IDEMPOTENCY": Mapping(_Code.FAILED_PRECONDITION, 409),
    "CS_CONFLICT_STATE": Mapping(_Code.FAILED_PRECONDITION, 409),
    "CS_CONFLICT_CONCURRENT": Mapping(_Code.ABORTED, 409),
    "CS_EXPIRED_DRAFT": Mapping(_Code.FAILED_PRECONDITION, 410),
    # Not FAILED_PRECONDITION: a client may start over from the oldest that is there.
    "CS_EXPIRED_CURSOR": Mapping(_Code.OUT_OF_RANGE, 410),
    "CS_RATE_LIMITED": _OVER,
    "CS_TENANT_INFLIGHT_LIMIT": _OVER,
    "CS_QUEUE_FULL": _OVER,
    "CS_CODEQ_CORRELATION_TIMEOUT": Mapping(_Code.DEADLINE_EXCEEDED, 504),
    "CS_STORE_UNAVAILABLE": _AWAY,
    "CS_STORE_SCHEMA": _AWAY,
    "CS_CODEQ_UNAVAILABLE": _AWAY,
    "CS_SERVICE_UNAVAILABLE": _AWAY,
    "CS_UNIMPLEMENTED": Mapping(_Code.UNIMPLEMENTED, 501),
    INTERNAL: Mapping(_Code.INTERNAL, 500),
    "CS_SECRETS_UNAVAILABLE": _AWAY,
    "CS_CALLER_GONE": Mapping(_Code.CANCELLED, 499),
    "CS_RUNTIME_TIMEOUT": Mapping(_Code.DEADLINE_EXCEEDED, 504),
    "CS_RUNTIME_MEMORY_LIMIT": _FUNCTION_FAILED,
    "CS_RUNTIME_EXCEPTION": _FUNCTION_FAILED,
    # The function's fault, not its caller's: 403 would send the caller looking for roles.
    "CS_RUNTIME_CAPABILITY_DENIED": _FUNCTION_FAILED,
    "CS_RUNTIME_CRASH": _AWAY,
    "CS_RUNTIME_BAD_RESPONSE": Mapping(_Code.UNKNOWN, 502),
    "CS_RUNTIME_RESULT_TOO_LARGE": Mapping(_Code.UNKNOWN, 502),
    "CS_RUNTIME_CANCELLED": Mapping(_Code.CANCELLED, 499),
    "CS_RUNTIME_QUOTA_EXCEEDED": _FUNCTION_FAILED,
    "CS_RUNTIME_FETCH_FAILED": Mapping(_Code.UNKNOWN, 502),
    "CS_CADENCE_UNAVAILABLE": _AWAY,
    "CS_CADENCE_ACTIVITY_UNMAPPED": Mapping(_Code.FAILED_PRECONDITION, 400),
    "CS_CADENCE_BAD_INPUT": _BAD,
    "CS_CADENCE_REFUSED": Mapping(_Code.FAILED_PRECONDITION, 400),
}

# What the proxy makes of a gRPC code when nobody tells it otherwise.
_PROXY_STATUS: Final = {
    _Code.OK: 200,
    _Code.CANCELLED: 499,
    _Code.UNKNOWN: 500,
    _Code.INVALID_ARGUMENT: 400,
    _Code.DEADLINE_EXCEEDED: 504,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.PERMISSION_DENIED: 403,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.FAILED_PRECONDITION: 400,
    _Code.ABORTED: 409,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNIMPLEMENTED: 501,
    _Code.INTERNAL: 500,
    _Code.UNAVAILABLE: 503,
    _Code.DATA_LOSS: 500,
    _Code.UNAUTHENTICATED: 401,
}


# A host call was refused and the function let it pass: its fault, not its caller's.
_REFUSED_INSIDE: Final = frozenset(
    {"CS_VALIDATION_FIELD", "CS_VALIDATION_TOO_LARGE", "CS_NOT_FOUND_SECRET", "CS_RATE_LIMITED", "CS_QUEUE_FULL"}
)


def mapping_of(error: CodeSousError) -> Mapping:
    """Tell how an error looks from outside; like INTERNAL when the table does not know its reason."""
    if isinstance(error, RuntimeFailure) and error.reason in _REFUSED_INSIDE:
        return _FUNCTION_FAILED
    return TABLE.get(error.reason, TABLE[INTERNAL])


def grpc_code(reason: str) -> grpc.StatusCode:
    """Tell the gRPC code of a reason; INTERNAL for one that the table does not know."""
    return TABLE.get(reason, TABLE[INTERNAL]).code


def http_status(reason: str) -> int:
    """Tell the HTTP status of a reason; 500 for one that the table does not know."""
    return TABLE.get(reason, TABLE[INTERNAL]).http


def proxy_override(error: CodeSousError) -> int | None:
    """Tell the HTTP status that the proxy must be told of, or None when it finds the right one by itself."""
    mapping = mapping_of(error)
    return None if _PROXY_STATUS[mapping.code] == mapping.http else mapping.http


def internal_error(request_id: str) -> CodeSousError:
    """Build what a caller learns of a fault of the platform: a fixed text and the request id."""
    return CodeSousError(INTERNAL, f"internal error; request {request_id}")


def to_status(error: CodeSousError, request_id: str) -> status_pb2.Status:
    """Turn a domain error into a `google.rpc.Status` of at most `MAX_STATUS_BYTES`."""
    if error.reason not in TABLE:
        error = internal_error(request_id)
    status = status_pb2.Status(code=mapping_of(error).code.value[0], message=one_line(error.message))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    for key in list(error.metadata)[:10]:
        info.metadata[_cut(key)] = _cut(error.metadata[key])
    status.details.add().Pack(info)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    if error.retry_after is not None:
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after)))
    if error.resource is not None:
        kind, name = error.resource
        status.details.add().Pack(error_details_pb2.ResourceInfo(resource_type=_cut(kind), resource_name=_cut(name)))
    if error.violations:
        status.details.add().Pack(_violations(error, MAX_STATUS_BYTES - status.ByteSize() - 100))
    return status


def one_line(text: str) -> str:
    """Make text fit for a status line: no control characters, at most `MAX_MESSAGE_BYTES` of UTF-8."""
    if text.isascii() and text.isprintable() and len(text) <= MAX_MESSAGE_BYTES:
        return text
    line = "".join(character if character.isprintable() else " " for character in text[:MAX_MESSAGE_BYTES])
    encoded = line.encode("utf-8", "replace")
    if len(encoded) <= MAX_MESSAGE_BYTES and len(text) <= MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: MAX_MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "..."


def _violations(error: CodeSousError, room: int) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    room -= 60  # for the line that tells of the rest
    for violation in error.violations[:MAX_VIOLATIONS]:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field), description=_cut(violation.description)
        )
        room -= entry.ByteSize() + 3
        if room < 0:
            break
        bad.field_violations.append(entry)
    left = len(error.violations) - len(bad.field_violations)
    if left:
        bad.field_violations.add(field="", description=f"{left} more violations are not listed")
    return bad


def _cut(text: str) -> str:
    if text.isascii() and text.isprintable() and len(text) <= MAX_TEXT_CHARS:
        return text
    clean = "".join(character if character.isprintable() else " " for character in text[: MAX_TEXT_CHARS + 1])
    clean = clean.encode("utf-8", "replace").decode()
    return clean if len(text) <= MAX_TEXT_CHARS else clean[: MAX_TEXT_CHARS - 3] + "..."


def _duration(delay: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(delay)
    return duration
