"""Host calls: what the capabilities do not name is denied, with the capability and what was asked."""

from __future__ import annotations

from typing import Any

import pytest
from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability, KvCapability, KvOperation, QueueCapability

from cs_invoker.host_calls import CapabilityHostCalls
from cs_sandbox.job import HostCallError

DENIED = "CS_RUNTIME_CAPABILITY_DENIED"


class RecordingKv:
    """Notes the calls that passed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        self.calls.append((operation, arguments))
        return "done"


CAPABILITIES = Capabilities(
    kv=KvCapability(
        prefixes=["cart/", "user/"], operations=[KvOperation.KV_OPERATION_GET, KvOperation.KV_OPERATION_LIST]
    ),
    codeq=QueueCapability(publish_topics=["orders", "audit.*"]),
    http=HttpCapability(allow_hosts=["api.example.com", "*.example.org"]),
    secrets=["api-key"],
)


async def refused(capabilities: Capabilities, method: str, *arguments: Any, cadence: bool = False) -> HostCallError:
    kv = RecordingKv()
    with pytest.raises(HostCallError) as caught:
        await CapabilityHostCalls(capabilities, kv, cadence=cadence).call(method, list(arguments))
    assert kv.calls == []
    return caught.value


async def test_a_granted_call_reaches_its_provider() -> None:
    kv = RecordingKv()
    host = CapabilityHostCalls(CAPABILITIES, kv, cadence=False)
    assert await host.call("kv.get", ["cart/1"]) == "done"
    assert await host.call("kv.list", ["user/", {"limit": 3}]) == "done"
    assert kv.calls == [("get", ["cart/1"]), ("list", ["user/", {"limit": 3}])]


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("kv.set", ["cart/1", 2], ("kv", "set")),
        ("kv.del", ["cart/1"], ("kv", "del")),
        ("kv.get", ["order/1"], ("kv", "order/1")),
        ("kv.get", ["cart"], ("kv", "cart")),
        ("kv.list", [""], ("kv", "''")),
        ("codeq.publish", ["payments", {}], ("codeq", "payments")),
        ("codeq.publish", ["orders2", {}], ("codeq", "orders2")),
        ("http.fetch", ["https://evil.example/"], ("http", "evil.example")),
        ("http.fetch", ["https://example.org/"], ("http", "example.org")),
        ("http.fetch", ["https://api.example.com@evil.example/"], ("http", "evil.example")),
        ("secrets.get", ["other-key"], ("secrets", "other-key")),
        ("cadence.heartbeat", [{}], ("cadence", "heartbeat")),
    ],
)
async def test_what_is_not_granted_is_denied_and_named(
    method: str, arguments: list[Any], named: tuple[str, ...]
) -> None:
    error = await refused(CAPABILITIES, method, *arguments)
    assert error.reason == DENIED
    for part in named:
        assert part in error.message


@pytest.mark.parametrize("method", ["kv.get", "codeq.publish", "http.fetch", "secrets.get", "cadence.heartbeat"])
async def test_a_version_without_capabilities_may_nothing(method: str) -> None:
    assert (await refused(Capabilities(), method, "anything")).reason == DENIED


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("codeq.publish", ["audit.login", {}]),
        ("http.fetch", ["https://api.example.com/x"]),
        ("http.fetch", ["https://a.example.org/x"]),
        ("secrets.get", ["api-key"]),
        ("cadence.heartbeat", [{}]),
    ],
)
async def test_a_granted_call_that_this_release_lacks_says_so(method: str, arguments: list[Any]) -> None:
    error = await refused(CAPABILITIES, method, *arguments, cadence=True)
    assert error.reason == "CS_UNIMPLEMENTED"
    assert "later release" in error.message


@pytest.mark.parametrize("method", ["", "kv", "kv.", "kv.flush", "os.exec", "kv.get.x", "__class__.x"])
async def test_an_unknown_call_is_refused(method: str) -> None:
    assert (await refused(CAPABILITIES, method, "cart/1")).reason == "CS_UNIMPLEMENTED"


@pytest.mark.parametrize("arguments", [[], [None], [1], [["cart/1"]], [{"key": "cart/1"}]])
async def test_a_key_that_is_no_text_is_refused(arguments: list[Any]) -> None:
    assert (await refused(CAPABILITIES, "kv.get", *arguments)).reason == "CS_VALIDATION_FIELD"


async def test_an_unhashable_or_odd_argument_is_denied_not_a_fault() -> None:
    assert (await refused(CAPABILITIES, "secrets.get", {"a": 1})).reason == DENIED
    assert (await refused(CAPABILITIES, "http.fetch", "http://[bad")).reason == DENIED
    assert (await refused(CAPABILITIES, "http.fetch", {"url": "x"})).reason == DENIED
