"""Every reason and every class of error is mapped, once, and documented."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from codesous.type.v1.error_reason_pb2 import ErrorReason
from codesous.type.v1.invocation_error_pb2 import InvocationError
from google.rpc import error_details_pb2

from cs_core import errors
from cs_core.rpc import status
from cs_core.rpc.context import RequestContext
from cs_core.rpc.interceptors.errors import failure_of

ROOT = Path(__file__).parents[2]
# An enum of the contracts, not a mapping.
REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys() if not name.endswith("UNSPECIFIED")]  # noqa: SIM118
FAMILIES = {
    "CS_AUTHN_TOKEN": 401,
    "CS_AUTHZ_": 403,
    "CS_VALIDATION_": 400,
    "CS_NOT_FOUND_": 404,
    "CS_CONFLICT_": 409,
    "CS_EXPIRED_": 410,
}
EXAMPLES: list[errors.CodeSousError] = [
    errors.CodeSousError("CS_INTERNAL", "x"),
    errors.AuthenticationError("CS_AUTHN_TOKEN_MISSING", "x"),
    errors.AuthorizationError("CS_AUTHZ_ACTION_DENIED", "x", action="cs:function:read"),
    errors.ValidationError.field("name", "must be"),
    errors.TooLargeError("x"),
    errors.NotFoundError("function", "default/x"),
    errors.ConflictError("CS_CONFLICT_EXISTS", "x"),
    errors.ExpiredError("CS_EXPIRED_DRAFT", "x"),
    errors.LimitError("CS_RATE_LIMITED", "x", timedelta(seconds=2)),
    errors.QuotaError("x"),
    errors.UnavailableError("CS_STORE_UNAVAILABLE", "x"),
    errors.StoreSchemaError("x"),
    errors.CorrelationTimeoutError("0" * 8),
    errors.CadenceRefusedError("x"),
    errors.UnimplementedError("x"),
    errors.NotHereError("cells are", "cs-invoker-pool"),
    errors.RuntimeFailure(InvocationError(reason="CS_RUNTIME_EXCEPTION", message="x"), "id"),
]


def test_the_table_has_every_reason_of_the_contracts_and_no_other() -> None:
    assert set(status.TABLE) == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_has_the_status_of_its_family(reason: str) -> None:
    if reason == "CS_VALIDATION_TOO_LARGE":
        assert status.http_status(reason) == 413
        return
    for family, expected in FAMILIES.items():
        if reason.startswith(family):
            assert status.http_status(reason) == expected
    if reason.endswith("_UNAVAILABLE"):
        assert status.http_status(reason) == 503


def test_every_class_of_error_has_an_example_here() -> None:
    classes = {
        found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, errors.CodeSousError)
    }
    assert {type(example) for example in EXAMPLES} == classes


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_becomes_a_status_with_its_details(error: errors.CodeSousError) -> None:
    told = status.to_status(error, "req_1")
    info = error_details_pb2.ErrorInfo()
    assert told.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, "code-sous")
    assert told.code == status.grpc_code(error.reason).value[0]
    kinds = {detail.type_url.rpartition(".")[2] for detail in told.details}
    assert ("RetryInfo" in kinds) is (error.retry_after is not None)
    assert ("BadRequest" in kinds) is bool(error.violations)
    assert ("ResourceInfo" in kinds) is (error.resource is not None)


def test_an_unknown_exception_tells_the_caller_nothing_but_the_request() -> None:
    call = RequestContext("/x/Y", (), request_id="req_1")
    failure = failure_of(call, RuntimeError("password=hunter2"))
    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.error is not None
    assert failure.error.message == "internal error; request req_1"


def test_a_status_is_small_enough_for_metadata_whatever_was_wrong() -> None:
    violations = [errors.FieldViolation("f" * 1000, "d" * 1000) for _ in range(500)]
    error = errors.ValidationError("CS_VALIDATION_FIELD", "m" * 100_000, violations=violations)
    told = status.to_status(error, "req_1")
    assert told.ByteSize() <= status.MAX_STATUS_BYTES
    bad = error_details_pb2.BadRequest()
    assert told.details[-1].Unpack(bad)
    assert "more violations" in bad.field_violations[-1].description


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_documented_with_its_statuses(reason: str) -> None:
    line = next(line for line in (ROOT / "docs/reference/errors.md").read_text().splitlines() if f"`{reason}`" in line)
    assert f"`{status.grpc_code(reason).name}`" in line
    assert str(status.http_status(reason)) in line


@pytest.mark.parametrize("reason", ["CS_VALIDATION_FIELD", "CS_RATE_LIMITED", "CS_QUEUE_FULL", "CS_NOT_FOUND_SECRET"])
def test_a_refusal_inside_of_a_function_is_not_told_as_its_callers_fault(reason: str) -> None:
    error = errors.RuntimeFailure(InvocationError(reason=reason, message="x"), "id")
    assert (status.mapping_of(error).code, status.mapping_of(error).http) == (grpc.StatusCode.UNKNOWN, 500)
    assert status.to_status(error, "req").code == grpc.StatusCode.UNKNOWN.value[0]
    assert status.http_status(reason) in (400, 404, 429)
