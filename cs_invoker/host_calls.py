"""The host calls of one activation: each is checked against the version's capabilities, then given to its provider.

A call that the capabilities do not grant is denied with the capability and what was asked. A call that they grant and
that this release does not perform says so: nothing pretends to have worked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from codesous.type.v1.capabilities_pb2 import Capabilities, KvOperation

from cs_sandbox.job import HostCallError

REASON_DENIED = "CS_RUNTIME_CAPABILITY_DENIED"
REASON_FIELD = "CS_VALIDATION_FIELD"
REASON_UNIMPLEMENTED = "CS_UNIMPLEMENTED"

_SHOWN = 128
"""Characters of what was asked that an error repeats."""


class KvProvider(Protocol):
    """Performs `kv.*` calls for one tenant. The calls have been checked."""

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        """Perform the operation. Raises HostCallError for bad arguments and when the store is away."""
        ...


class CapabilityHostCalls:
    """Implements the sandbox's HostCalls for one activation."""

    def __init__(self, capabilities: Capabilities, kv: KvProvider, *, cadence: bool) -> None:
        """`cadence` tells whether the activation came from a Cadence task: only those have a heartbeat."""
        self._capabilities = capabilities
        self._kv = kv
        self._cadence = cadence

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform `method` and return a JSON value. Raises HostCallError."""
        area, _, operation = method.partition(".")
        match area:
            case "kv":
                self._check_kv(operation, arguments)
                return await self._kv.call(operation, arguments)
            case "codeq" | "http" | "secrets" | "cadence":
                self._check_granted(area, method, arguments)
                raise HostCallError(REASON_UNIMPLEMENTED, f"cs.{method} comes with a later release")
            case _:
                raise HostCallError(REASON_UNIMPLEMENTED, f"there is no host call {_shown(method)}")

    def _check_kv(self, operation: str, arguments: list[Any]) -> None:
        key = arguments[0] if arguments else None
        if operation not in KV_OPERATIONS:
            raise HostCallError(REASON_UNIMPLEMENTED, f"there is no host call {_shown(f'kv.{operation}')}")
        if not isinstance(key, str):
            raise HostCallError(REASON_FIELD, f"cs.kv.{operation}: the first argument must be text")
        granted = self._capabilities.kv
        if KV_OPERATIONS[operation] not in granted.operations:
            raise denied("kv", f"operation {operation}", f"on {_shown(key)}")
        if not any(key.startswith(prefix) for prefix in granted.prefixes):
            what = "prefix" if operation == "list" else "key"
            raise denied("kv", f"{what} {_shown(key)}", f"for {operation}")

    def _check_granted(self, area: str, method: str, arguments: list[Any]) -> None:
        asked = arguments[0] if arguments else None
        granted = {
            "codeq": lambda: matches_topic(self._capabilities.codeq.publish_topics, asked),
            "http": lambda: matches_host(self._capabilities.http.allow_hosts, asked),
            "secrets": lambda: isinstance(asked, str) and asked in self._capabilities.secrets,
            "cadence": lambda: self._cadence,
        }
        if not granted[area]():
            raise denied(area, _shown(asked), f"by cs.{method}")


KV_OPERATIONS: Mapping[str, KvOperation.ValueType] = {
    "get": KvOperation.KV_OPERATION_GET,
    "set": KvOperation.KV_OPERATION_SET,
    "del": KvOperation.KV_OPERATION_DEL,
    "incr": KvOperation.KV_OPERATION_INCR,
    "list": KvOperation.KV_OPERATION_LIST,
}


def matches_topic(patterns: Sequence[str], topic: object) -> bool:
    """Whether `topic` is one of the names, or begins like one that ends in `*`."""
    if not isinstance(topic, str):
        return False
    return any(topic.startswith(p[:-1]) if p.endswith("*") else topic == p for p in patterns)


def matches_host(patterns: Sequence[str], url: object) -> bool:
    """Whether the host of `url` is one of the names, or below a domain that is given as `*.domain`."""
    if not isinstance(url, str):
        return False
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return any(host.endswith(p[1:].lower()) if p.startswith("*.") else host == p.lower() for p in patterns)


def denied(capability: str, asked: str, where: str) -> HostCallError:
    """The denial: names the capability and what was asked."""
    return HostCallError(
        REASON_DENIED,
        f"capability {capability} does not allow {asked} {where}: the version's capabilities do not name it",
    )


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else type(value).__name__
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
