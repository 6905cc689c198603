"""Host calls: what the capabilities do not name is denied, with the capability and what was asked."""

from __future__ import annotations

from typing import Any

import pytest
from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability, KvCapability, KvOperation, QueueCapability

from cs_sandbox.host.calls import CheckedCalls
from cs_sandbox.host.capability import Grants
from cs_sandbox.host.catalogue import CALLS
from cs_sandbox.job import HostCallError

DENIED = "CS_RUNTIME_CAPABILITY_DENIED"


class Recording:
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
EVERYTHING = Capabilities(
    kv=KvCapability(prefixes=["c"], operations=[op for op in KvOperation.values() if op]),
    codeq=QueueCapability(publish_topics=["*"]),
)


def checked(capabilities: Capabilities, provider: Recording, *, cadence: bool = False) -> CheckedCalls:
    areas = {call.area: provider for call in CALLS.values()}
    return CheckedCalls(Grants(capabilities, cadence=cadence), areas)


async def refused(capabilities: Capabilities, method: str, *arguments: Any) -> HostCallError:
    provider = Recording()
    with pytest.raises(HostCallError) as caught:
        await checked(capabilities, provider).call(method, list(arguments))
    assert provider.calls == []
    return caught.value


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("kv.get", ["cart/1"]),
        ("kv.list", ["user/", {"limit": 3}]),
        ("codeq.publish", ["orders", {}]),
        ("codeq.publish", ["audit.login", {}]),
        ("http.fetch", ["https://api.example.com/x"]),
        ("http.fetch", ["https://API.Example.COM.:8443/x"]),
        ("http.fetch", ["https://a.example.org/x"]),
        ("secrets.get", ["api-key"]),
        ("cadence.heartbeat", [{}]),
    ],
)
async def test_a_granted_call_reaches_its_provider(method: str, arguments: list[Any]) -> None:
    provider = Recording()
    assert await checked(CAPABILITIES, provider, cadence=True).call(method, arguments) == "done"
    assert provider.calls == [(method.partition(".")[2], arguments)]


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
        ("http.fetch", ["https://aexample.org/"], ("http", "aexample.org")),
        ("http.fetch", ["https://api.example.com.evil.example/"], ("http", "api.example.com.evil.example")),
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


@pytest.mark.parametrize("topic", ["cs", "cs.", "cs.invoke", "cs.results", "cs.dlq.invoke"])
async def test_topics_of_the_platform_are_denied_whatever_is_granted(topic: str) -> None:
    error = await refused(EVERYTHING, "codeq.publish", topic, {})
    assert error.reason == DENIED
    assert topic in error.message


@pytest.mark.parametrize("method", sorted(CALLS.keys() - {"http.abort"}))
async def test_a_version_without_capabilities_may_nothing(method: str) -> None:
    argument = "https://example.com/" if method == "http.fetch" else "anything"
    assert (await refused(Capabilities(), method, argument)).reason == DENIED


@pytest.mark.parametrize("method", ["", "kv", "kv.", "kv.flush", "os.exec", "kv.get.x", "__class__.x"])
async def test_an_unknown_call_is_refused(method: str) -> None:
    assert (await refused(EVERYTHING, method, "cart/1")).reason == "CS_UNIMPLEMENTED"


@pytest.mark.parametrize("arguments", [[], [None], [1], [["cart/1"]], [{"key": "cart/1"}]])
@pytest.mark.parametrize("method", ["kv.get", "codeq.publish", "http.fetch", "secrets.get"])
async def test_a_first_argument_that_is_no_text_is_refused(method: str, arguments: list[Any]) -> None:
    assert (await refused(CAPABILITIES, method, *arguments)).reason == "CS_VALIDATION_FIELD"


async def test_what_was_asked_is_repeated_in_part_only() -> None:
    assert len((await refused(CAPABILITIES, "kv.get", "x" * 10_000)).message) < 400
