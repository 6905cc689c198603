"""The host calls that are held in memory behave as documented."""

import pytest

from cs_sandbox import HostCallError
from cs_sandbox.local import LocalHostCalls


async def test_a_value_with_a_time_to_live_goes_away():
    now = [0.0]
    host = LocalHostCalls(lambda: now[0])
    await host.call("kv.set", ["a", 1, {"ttl": 5}])
    now[0] = 4.9
    assert await host.call("kv.get", ["a"]) == 1
    now[0] = 5.0
    assert await host.call("kv.get", ["a"]) is None
    assert await host.call("kv.list", [""]) == []


async def test_values_are_copies():
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
        ("kv.get", ["k" * 513]),
        ("kv.set", ["k", "x" * 300_000]),
        ("kv.set", ["k", 1, {"ttl": 0}]),
        ("kv.set", ["k", 1, {"ttl": "5"}]),
        ("kv.set", ["k", 1, {"ttl": True}]),
        ("kv.incr", ["k", 1.5]),
        ("kv.incr", ["k", 2**60]),
        ("kv.incr", ["text", 1]),
        ("kv.list", ["", {"limit": 0}]),
        ("kv.list", ["", {"limit": 1001}]),
    ],
)
async def test_bad_arguments_are_refused_with_the_field(method, arguments):
    host = LocalHostCalls()
    await host.call("kv.set", ["text", "t"])
    with pytest.raises(HostCallError) as caught:
        await host.call(method, arguments)
    assert caught.value.reason == "CS_VALIDATION_FIELD"


async def test_what_needs_the_mesh_is_not_implemented():
    with pytest.raises(HostCallError) as caught:
        await LocalHostCalls().call("codeq.publish", ["t", 1])
    assert caught.value.reason == "CS_UNIMPLEMENTED"
