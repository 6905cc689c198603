"""The host calls that are held in memory: the same checks and limits as in the mesh."""

from __future__ import annotations

from typing import Any

import pytest
from codesous.type.v1.capabilities_pb2 import Capabilities

from cs_sandbox import HostCallError
from cs_sandbox.local import HostLimits, LocalHostCalls


async def reason_of(host: LocalHostCalls, method: str, *arguments: Any) -> str:
    with pytest.raises(HostCallError) as caught:
        await host.call(method, list(arguments))
    return caught.value.reason


async def test_values_are_copies() -> None:
    host = LocalHostCalls()
    value = {"a": [1]}
    await host.call("kv.set", ["k", value])
    value["a"].append(2)
    assert await host.call("kv.get", ["k"]) == {"a": [1]}


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("kv.get", []),
        ("kv.get", [1]),
        ("kv.get", [""]),
        ("kv.get", ["k" * 513]),
        ("kv.set", ["k", 1, {"ttl": 0}]),
        ("kv.set", ["k", 1, {"ttl": "5"}]),
        ("kv.set", ["k", 1, {"ttl": True}]),
        ("kv.set", ["k", 1, {"ttl": 1e10}]),
        ("kv.set", ["k", 1, {"tll": 5}]),
        ("kv.set", ["k", 1, 5]),
        ("kv.set", ["k", float("nan")]),
        ("kv.incr", ["k", 1.5]),
        ("kv.incr", ["k", True]),
        ("kv.incr", ["k", 2**60]),
        ("kv.incr", ["text", 1]),
        ("kv.list", ["", {"limit": 0}]),
        ("kv.list", ["", {"limit": 1001}]),
        ("kv.list", ["", {"after": 1}]),
        ("codeq.publish", ["Upper", 1]),
        ("codeq.publish", ["t" * 128, 1]),
        ("codeq.publish", ["t", 1, {"key": 1}]),
        ("codeq.publish", ["t", 1, {"key": "k" * 257}]),
        ("codeq.publish", ["t", 1, {"delay": -1}]),
        ("codeq.publish", ["t", 1, {"delay": 604_801}]),
    ],
)
async def test_bad_arguments_are_refused_with_the_field(method: str, arguments: list[Any]) -> None:
    host = LocalHostCalls()
    await host.call("kv.set", ["text", "t"])
    assert await reason_of(host, method, *arguments) == "CS_VALIDATION_FIELD"
    assert host.published == []


async def test_what_is_too_large_is_refused() -> None:
    host = LocalHostCalls(limits=HostLimits(kv_value_bytes=10, message_bytes=10))
    await host.call("kv.set", ["k", "x" * 8])
    await host.call("codeq.publish", ["t", "x" * 8])
    assert await reason_of(host, "kv.set", "k", "x" * 9) == "CS_VALIDATION_TOO_LARGE"
    assert await reason_of(host, "codeq.publish", "t", "x" * 9) == "CS_VALIDATION_TOO_LARGE"


async def test_messages_are_kept_with_their_ids() -> None:
    host = LocalHostCalls()
    answers = [await host.call("codeq.publish", ["orders", {"n": n}, {"key": "a", "delay": 1.5}]) for n in range(2)]
    assert answers[0]["messageId"] != answers[1]["messageId"]
    assert [(m.topic, m.payload, m.key, m.delay.total_seconds()) for m in host.published] == [
        ("orders", b'{"n":0}', "a", 1.5),
        ("orders", b'{"n":1}', "a", 1.5),
    ]


async def test_secrets_are_those_that_are_granted_and_there() -> None:
    host = LocalHostCalls(Capabilities(secrets=["key", "gone"]), secrets={"key": "s3cret", "other": "x"})
    assert await host.call("secrets.get", ["key"]) == "s3cret"
    assert await reason_of(host, "secrets.get", "gone") == "CS_NOT_FOUND_SECRET"
    assert await reason_of(host, "secrets.get", "other") == "CS_RUNTIME_CAPABILITY_DENIED"


@pytest.mark.parametrize(
    ("method", "argument"), [("http.fetch", "https://example.com/"), ("secrets.get", "s"), ("cadence.heartbeat", {})]
)
async def test_what_leaves_this_process_is_not_granted_by_itself(method: str, argument: Any) -> None:
    assert await reason_of(LocalHostCalls(), method, argument) == "CS_RUNTIME_CAPABILITY_DENIED"
