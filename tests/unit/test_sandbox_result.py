"""Failures become errors within their limits."""

import pytest
from codesous.cell.v1.frames_pb2 import Run
from codesous.type.v1.function_response_pb2 import FunctionResponse

from cs_sandbox import result
from cs_sandbox.response import ResponseError, check_response

RUN = Run(result_limit_bytes=1000, error_limit_bytes=500, stack_limit_bytes=100, memory_bytes=32 << 20, timeout_ms=5)


def failure(kind="thrown", name="Error", message="m", stack="", near=False):
    return result.failure(RUN, result.Thrown(kind, name, message, stack), lambda: near).error


def test_text_is_cut_on_a_character():
    assert result.cut("ééé", 5) == "éé"
    assert result.cut("abc", 3) == "abc"
    assert result.cut("abc", 0) == ""


def test_an_error_fits_its_limits():
    error = failure(message="é" * 10_000, stack="at x\n" * 1000, name="n" * 1000)
    assert error.ByteSize() <= 500
    assert len(error.stack.encode()) <= 100


def test_lines_of_the_guest_are_not_in_the_stack():
    stack = "    at f (index.js:1:2)\n    at drive (cs:prelude:10:20)\n    at call (native)\n\n"
    assert result.clean_stack(stack) == "    at f (index.js:1:2)"


def test_memory_is_recognised_by_the_engines_error_or_a_bare_null_near_the_limit():
    assert failure(name="InternalError", message="out of memory").reason == "CS_RUNTIME_MEMORY_LIMIT"
    assert failure(kind="null", name="null", message="null", near=True).reason == "CS_RUNTIME_MEMORY_LIMIT"
    assert failure(kind="null", name="null", message="null").reason == "CS_RUNTIME_EXCEPTION"
    assert failure(message="out of memory", near=True).reason == "CS_RUNTIME_EXCEPTION"


@pytest.mark.parametrize(
    "response",
    [
        FunctionResponse(status_code=0),
        FunctionResponse(status_code=100),
        FunctionResponse(status_code=200, headers={"a": "\r\nb"}),
        FunctionResponse(status_code=200, headers={"a\n": "b"}),
        FunctionResponse(status_code=200, headers={"a:": "b"}),
        FunctionResponse(status_code=200, headers={"a": "\x7f"}),
        FunctionResponse(status_code=200, cookies=["a\0"]),
        FunctionResponse(status_code=200, is_base64_encoded=True, body="a"),
        FunctionResponse(status_code=200, is_base64_encoded=True, body="é"),
    ],
)
def test_responses_that_break_a_rule_are_refused(response):
    with pytest.raises(ResponseError):
        check_response(response)


def test_a_sound_response_passes():
    check_response(FunctionResponse(status_code=599, headers={"x-a": "b c\t"}, body="aGk=", is_base64_encoded=True))
