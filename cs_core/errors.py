"""The error tree: every refusal and failure that the platform names.

Each error carries a reason from `codesous.type.v1.ErrorReason`, without the prefix. The codes of the transport
are not known here; `cs_core.rpc.status` maps reasons to them, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from codesous.type.v1.invocation_error_pb2 import InvocationError


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One rule that one field of a request breaks."""

    field: str
    description: str


class CodeSousError(Exception):
    """Root of the tree. Its message is safe to show to the caller."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: timedelta | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.resource = resource


class AuthenticationError(CodeSousError):
    """The caller is not who it says, or says nothing: `CS_AUTHN_*`."""


class AuthorizationError(CodeSousError):
    """The caller may not: `CS_AUTHZ_*`."""

    def __init__(
        self, reason: str, message: str, *, action: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason, message, metadata={**({"action": action} if action else {}), **(metadata or {})})


class ValidationError(CodeSousError):
    """The request breaks a rule: `CS_VALIDATION_*`."""

    @classmethod
    def field(cls, field: str, rule: str) -> ValidationError:
        """Build the error of a single field that breaks `rule`."""
        return cls("CS_VALIDATION_FIELD", f"{field}: {rule}", violations=(FieldViolation(field, rule),))


class TooLargeError(ValidationError):
    """The request, or a part of it, is over its limit: `CS_VALIDATION_TOO_LARGE`."""

    def __init__(self, message: str, *, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__("CS_VALIDATION_TOO_LARGE", message, violations=violations)


class NotFoundError(CodeSousError):
    """There is no such thing: `CS_NOT_FOUND_*`."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"CS_NOT_FOUND_{kind.upper()}", f"no such {kind.replace('_', ' ')}: {name}", resource=(kind, name)
        )


class ConflictError(CodeSousError):
    """The present state does not allow it: `CS_CONFLICT_*`."""


class ExpiredError(CodeSousError):
    """It was there, and its time has passed: `CS_EXPIRED_*`."""


class LimitError(CodeSousError):
    """A rate or a quota is used up: `CS_RATE_LIMITED`, `CS_TENANT_INFLIGHT_LIMIT`, `CS_QUEUE_FULL`."""

    def __init__(self, reason: str, message: str, retry_after: timedelta) -> None:
        super().__init__(reason, message, retry_after=retry_after)


class QuotaError(CodeSousError):
    """A tenant has used up what it may keep: `CS_RUNTIME_QUOTA_EXCEEDED`. Only removing something helps."""

    def __init__(self, message: str) -> None:
        super().__init__("CS_RUNTIME_QUOTA_EXCEEDED", message)


class UnavailableError(CodeSousError):
    """Something that the call needs does not answer: `CS_*_UNAVAILABLE`. Trying again later can help."""

    def __init__(self, reason: str, message: str, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(reason, message, retry_after=retry_after)


class StoreSchemaError(CodeSousError):
    """The store's data has a form that this release does not work on: `CS_STORE_SCHEMA`. Only an operator helps."""

    def __init__(self, message: str) -> None:
        super().__init__("CS_STORE_SCHEMA", message)


class CorrelationTimeoutError(CodeSousError):
    """The wait for a result ended before the result came; the activation may still finish."""

    def __init__(self, activation_id: str) -> None:
        super().__init__(
            "CS_CODEQ_CORRELATION_TIMEOUT",
            f"no result in time; activation {activation_id} may still finish",
            metadata={"activation_id": activation_id},
        )


class CadenceRefusedError(CodeSousError):
    """The Cadence server refused a call; the same call will be refused again."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        """`missing` tells that what the call names (a domain, a task, a workflow) is not there (any more)."""
        super().__init__("CS_CADENCE_REFUSED", message)
        self.missing = missing


class UnimplementedError(CodeSousError):
    """Declared by the contracts and not implemented by this release."""

    def __init__(self, what: str) -> None:
        super().__init__("CS_UNIMPLEMENTED", f"{what} is not implemented by this release")


class NotHereError(CodeSousError):
    """Another process has it: `CS_UNIMPLEMENTED`."""

    def __init__(self, what: str, owner: str) -> None:
        """`what` with its verb, as `cells are`; `owner` is the process to ask."""
        super().__init__("CS_UNIMPLEMENTED", f"{what} not of this process; ask {owner}", metadata={"ask": owner})


class RuntimeFailure(CodeSousError):  # noqa: N818 - the field's word for it
    """A run of a function failed: `CS_RUNTIME_*`."""

    def __init__(self, error: InvocationError, activation_id: str) -> None:
        super().__init__(error.reason, error.message, metadata={"activation_id": activation_id})
        self.error = error
