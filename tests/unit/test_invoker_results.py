"""Results fit their limits, in bytes of UTF-8, whatever the sandbox or the function gave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError
from hypothesis import given
from hypothesis import strategies as st

from cs_invoker import results
from cs_invoker.results import Sizes, cut_text, fit_error, of_failure, of_outcome
from cs_sandbox.job import Outcome

START = datetime(2030, 1, 1, tzinfo=UTC)
SIZES = Sizes(result=1000, error=600, stack=100, log=50)
REQUEST = InvocationRequest(request_id="req_1", activation_id="a1", function=FunctionRef(tenant="t_abcdef"))


def outcome(status: ActivationStatus, response=None, error=None) -> Outcome:
    return Outcome(status, response, error, (), START, START + timedelta(seconds=1))


@given(st.text(), st.integers(min_value=0, max_value=64))
def test_cut_text_keeps_the_limit_and_stays_text(text: str, limit: int) -> None:
    cut = cut_text(text, limit)
    assert len(cut.encode()) <= limit
    if len(text.encode()) <= limit:
        assert cut == text


def test_a_character_is_not_cut_in_half() -> None:
    assert cut_text("ä" * 100, 20) == "ä" * 7 + " [cut]"


def test_a_success_keeps_the_response_and_the_times() -> None:
    response = FunctionResponse(status_code=201, body="hi")
    result = of_outcome(REQUEST, outcome(ActivationStatus.ACTIVATION_STATUS_SUCCESS, response), 2, SIZES)
    assert result.response == response
    assert not result.HasField("error")
    assert (result.request_id, result.activation_id, result.tenant, result.attempt) == ("req_1", "a1", "t_abcdef", 2)
    assert result.end_time.ToDatetime() - result.start_time.ToDatetime() == timedelta(seconds=1)


def test_a_response_over_the_limit_becomes_an_error() -> None:
    response = FunctionResponse(status_code=200, body="x" * 1000)
    result = of_outcome(REQUEST, outcome(ActivationStatus.ACTIVATION_STATUS_SUCCESS, response), 1, SIZES)
    assert result.status == ActivationStatus.ACTIVATION_STATUS_ERROR
    assert result.error.reason == "CS_RUNTIME_RESULT_TOO_LARGE"
    assert not result.HasField("response")


@pytest.mark.parametrize(
    "status",
    [
        ActivationStatus.ACTIVATION_STATUS_ERROR,
        ActivationStatus.ACTIVATION_STATUS_TIMEOUT,
        ActivationStatus.ACTIVATION_STATUS_CANCELLED,
    ],
)
def test_the_sandbox_gives_the_status(status: ActivationStatus) -> None:
    error = InvocationError(reason="CS_RUNTIME_EXCEPTION", message="no", type="TypeError", stack="at index.js:1")
    result = of_outcome(REQUEST, outcome(status, error=error), 1, SIZES)
    assert result.status == status
    assert result.error == error


@given(st.text(max_size=2000), st.text(max_size=2000), st.text(max_size=2000))
def test_an_error_fits_its_limit(message: str, kind: str, stack: str) -> None:
    error = InvocationError(reason="CS_RUNTIME_EXCEPTION", message=message, type=kind, stack=stack)
    fitted = fit_error(error, SIZES)
    assert fitted.ByteSize() <= SIZES.error
    assert len(fitted.stack.encode()) <= SIZES.stack
    assert fitted.reason == error.reason


def test_a_failure_by_time_is_a_timeout_and_any_other_an_error() -> None:
    late = of_failure(REQUEST, results.REASON_TIMEOUT, "late", now=START)
    gone = of_failure(REQUEST, "CS_NOT_FOUND_VERSION", "gone", now=START)
    assert late.status == ActivationStatus.ACTIVATION_STATUS_TIMEOUT
    assert gone.status == ActivationStatus.ACTIVATION_STATUS_ERROR
    assert not late.HasField("start_time")
    assert late.attempt == 0
