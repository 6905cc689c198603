"""`cs.secrets.get`: the secrets that a version's capabilities name. What was read is hidden in all that is kept."""

from __future__ import annotations

from typing import Any, Final, Protocol

from cs_sandbox.host.redaction import Redactor
from cs_sandbox.job import HostCallError

VALUE_MAX: Final = 64 * 1024


class SecretSource(Protocol):
    """The secrets that one activation can find."""

    async def find(self, name: str) -> str | None:
        """The value; None when there is none. Raises HostCallError when the source is away."""
        ...


class SecretCalls:
    """Provides the area `secrets`."""

    def __init__(self, source: SecretSource, redactor: Redactor) -> None:
        self._source = source
        self._redactor = redactor

    async def call(self, _operation: str, arguments: list[Any]) -> str:
        """Read a secret; the only operation. Raises HostCallError."""
        name = arguments[0]
        value = await self._source.find(name)
        if value is None:
            raise HostCallError("CS_NOT_FOUND_SECRET", f"there is no secret {name!r} for this function")
        self._redactor.learn(value)
        return value
