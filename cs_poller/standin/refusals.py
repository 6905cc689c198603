"""What the server refuses, as Cadence says it."""

from __future__ import annotations

from cadence.api.v1 import error_pb2
from google.protobuf.message import Message


class RefusalError(Exception):
    """A call is refused: `code` is the name of a gRPC code, `detail` the error message of Cadence's API."""

    def __init__(self, code: str, message: str, detail: Message | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


def not_there(what: str) -> RefusalError:
    """What the call names does not exist, or not any more."""
    return RefusalError("NOT_FOUND", what, error_pb2.EntityNotExistsError())


def bad(what: str) -> RefusalError:
    """The call breaks a rule."""
    return RefusalError("INVALID_ARGUMENT", what)
