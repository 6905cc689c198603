"""The host calls of one activation: each is looked up, checked against the grants, and given to the area's provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cs_sandbox.host.capability import Grants, shown
from cs_sandbox.host.catalogue import CALLS, Area, HostCall
from cs_sandbox.job import HostCallError

UNIMPLEMENTED: Final = "CS_UNIMPLEMENTED"
CANCELLED: Final = "CS_RUNTIME_CANCELLED"


class Provider(Protocol):
    """Performs the calls of one area for one activation. They have been checked."""

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        """Perform the operation and return a JSON value. Raises HostCallError for all that user code may learn."""
        ...


class CallObserver(Protocol):
    """Sees the calls of one activation. Must not raise."""

    def started(self, method: str) -> Callable[[str], None]:
        """See a call begin. What it answers is told how the call ended: empty, or the reason of its error."""
        ...


class CheckedCalls:
    """Implements the sandbox's HostCalls."""

    def __init__(
        self, grants: Grants, providers: Mapping[Area, Provider], observer: CallObserver | None = None
    ) -> None:
        self._grants = grants
        self._providers = providers
        self._observer = observer

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform `method` and return a JSON value. Raises HostCallError."""
        call = CALLS.get(method)
        if call is None:
            raise HostCallError(UNIMPLEMENTED, f"there is no host call {shown(method)}")
        if self._observer is None:
            return await self._perform(method, call, arguments)
        ended, reason = self._observer.started(method), CANCELLED
        try:
            answer = await self._perform(method, call, arguments)
            reason = ""
            return answer  # noqa: TRY300 - told before it is answered
        except HostCallError as error:
            reason = error.reason
            raise
        finally:
            ended(reason)

    async def _perform(self, method: str, call: HostCall, arguments: list[Any]) -> Any:
        self._grants.check(call, arguments)
        provider = self._providers.get(call.area)
        if provider is None:
            raise HostCallError(UNIMPLEMENTED, f"cs.{method} is not there in this place")
        return await provider.call(call.operation, arguments)
