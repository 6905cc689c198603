"""How a command fails: what is printed, and the exit code (1 the caller's error, 2 the server's, 3 the function's)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

CALLER: Final = 1
SERVER: Final = 2
FUNCTION: Final = 3

_SERVER_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_REQUEST_ID: Final = "x-request-id"


@dataclass
class CommandError(Exception):
    """A command cannot do what it was asked."""

    reason: str
    message: str
    exit_code: int = CALLER
    request_id: str = ""
    violations: Sequence[tuple[str, str]] = ()

    def data(self) -> dict[str, Any]:
        """The error as plain data."""
        return {
            "error": {
                "reason": self.reason,
                "message": self.message,
                "request_id": self.request_id,
                "violations": [{"field": field, "description": rule} for field, rule in self.violations],
            }
        }


def of_rpc(error: grpc.RpcError, address: str) -> CommandError:
    """Read what a server, or the way to it, said."""
    call: Any = error
    code: grpc.StatusCode = call.code()
    reason, request_id, violations = "", _request_id(call), []
    for detail in _details(call):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.RequestInfo.DESCRIPTOR):
            request = error_details_pb2.RequestInfo()
            detail.Unpack(request)
            request_id = request.request_id or request_id
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [(found.field, found.description) for found in bad.field_violations]
    message = call.details() or code.name.lower()
    if not reason:
        reason, message = _of_transport(code, message, address)
    return CommandError(reason, message, SERVER if code in _SERVER_CODES else CALLER, request_id, violations)


def _of_transport(code: grpc.StatusCode, message: str, address: str) -> tuple[str, str]:
    """What to say when no service of ours answered."""
    if code == grpc.StatusCode.UNAVAILABLE:
        return "CS_CLI_UNREACHABLE", f"{address} does not answer; is the mesh up? (`cs status`, `cs up`)"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return "CS_CLI_DEADLINE", f"{address} did not answer in time"
    return f"CS_CLI_{code.name}", message


def _details(call: Any) -> Sequence[Any]:
    try:
        status = rpc_status.from_call(call)
    except (ValueError, AttributeError):
        return ()
    return status.details if status is not None else ()


def _request_id(call: Any) -> str:
    for metadata in (call.trailing_metadata(), call.initial_metadata()):
        for key, value in metadata or ():
            if key == _REQUEST_ID:
                return str(value)
    return ""
