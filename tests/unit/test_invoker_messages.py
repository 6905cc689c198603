"""Whatever stands in the queue, opening it gives a request or says why not, and nothing else."""

from __future__ import annotations

import pytest
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.function_ref_pb2 import FunctionRef
from hypothesis import given
from hypothesis import strategies as st

from cs_core.ids import activation_id
from cs_invoker.messages import BadMessageError, open_request


def make_envelope(**changes: object) -> Envelope:
    function = FunctionRef(tenant="t_abcdef", namespace="shop", function="pay", version=1)
    request = InvocationRequest(activation_id=activation_id(), function=function)
    for path, value in changes.items():
        target = request.function if path in {"tenant", "namespace", "function", "version"} else request
        setattr(target, path, value)
    return Envelope(message_id="m1", invocation_request=request)


def test_a_request_is_opened() -> None:
    envelope = make_envelope()
    opened, request = open_request(envelope.SerializeToString())
    assert opened == envelope
    assert request == envelope.invocation_request


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"tenant": "evil"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"namespace": "../x"}, "namespace"),
        ({"function": "}{"}, "function"),
        ({"activation_id": "1"}, "activation_id"),
        ({"version": 0}, "version"),
    ],
)
def test_a_request_that_breaks_a_rule_names_the_field(change: dict[str, object], names: str) -> None:
    with pytest.raises(BadMessageError, match=names):
        open_request(make_envelope(**change).SerializeToString())


def test_an_envelope_with_another_body_is_refused() -> None:
    with pytest.raises(BadMessageError, match="invocation_result"):
        open_request(Envelope(invocation_result=InvocationResult()).SerializeToString())
    with pytest.raises(BadMessageError, match="nothing"):
        open_request(b"")


def test_a_deadline_that_is_no_moment_is_refused() -> None:
    envelope = make_envelope()
    envelope.invocation_request.deadline.seconds = 2**60
    with pytest.raises(BadMessageError, match="deadline"):
        open_request(envelope.SerializeToString())


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else_happens(body: bytes) -> None:
    with pytest.raises(BadMessageError):
        open_request(body)
