"""The host calls of one activation: each is looked up, checked against the grants, and given to the area's provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from cs_sandbox.host.capability import Grants, shown
from cs_sandbox.host.catalogue import CALLS, Area
from cs_sandbox.job import HostCallError

UNIMPLEMENTED: Final = "CS_UNIMPLEMENTED"


class Provider(Protocol):
    """Performs the calls of one area for one activation. They have been checked."""

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        """Perform the operation and return a JSON value. Raises HostCallError for all that user code may learn."""
        ...


class CheckedCalls:
    """Implements the sandbox's HostCalls."""

    def __init__(self, grants: Grants, providers: Mapping[Area, Provider]) -> None:
        self._grants = grants
        self._providers = providers

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform `method` and return a JSON value. Raises HostCallError."""
        call = CALLS.get(method)
        if call is None:
            raise HostCallError(UNIMPLEMENTED, f"there is no host call {shown(method)}")
        self._grants.check(call, arguments)
        provider = self._providers.get(call.area)
        if provider is None:
            raise HostCallError(UNIMPLEMENTED, f"cs.{method} is not there in this place")
        return await provider.call(call.operation, arguments)
