"""Changing several records of a tenant in one step, on condition of what was read.

See docs/adr/0001: read, compute, and commit with the bytes that were read as preconditions.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cs_core.errors import ConflictError
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_COMMIT = load_script("cs_core.store", "commit")
_ATTEMPTS = 64
_T = TypeVar("_T")


class StaleError(Exception):
    """A precondition failed: what was read has changed since."""


# Makes a precondition hold that has nothing to do with what was read.
Remedy = Callable[[KvClient], Awaitable[None]]


class Transaction:
    """Preconditions and writes of one commit. All keys must be of one tenant."""

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._values: list[bytes | str | int] = []
        self._checks: list[list[int]] = []
        self._writes: list[list[str | int]] = []
        self._remedies: dict[int, Remedy] = {}

    def _key(self, key: str) -> int:
        return self._keys.setdefault(key, len(self._keys) + 1)

    def _value(self, value: bytes | str | int) -> int:
        self._values.append(value)
        return len(self._values)

    def expect(self, key: str, value: bytes | None, field: str | None = None) -> None:
        """Require that the key, or the field of the hash, holds exactly `value`; None: nothing."""
        self._checks.append(
            [
                self._key(key),
                0 if field is None else self._value(field),
                0 if value is None else self._value(value),
            ]
        )

    def require(self, key: str, field: str, remedy: Remedy) -> None:
        """Require that the field of the hash is there, whatever it holds; `remedy` is run when it is not."""
        self._checks.append([self._key(key), self._value(field), -1])
        self._remedies[len(self._checks)] = remedy

    def write(self, command: str, key: str, *arguments: bytes | str | int) -> None:
        """Run a command on the key when every precondition holds."""
        self._writes.append([command, self._key(key), *(self._value(argument) for argument in arguments)])

    def publish(self, channel: str, message: bytes | str) -> None:
        """Send a message on a channel when every precondition holds. A channel is no key: it has no slot."""
        self._writes.append(["PUBLISH", 0, self._value(channel), self._value(message)])

    async def commit(self, client: KvClient) -> None:
        """Apply all of it, or nothing.

        Raises:
            StaleError: a precondition failed.
        """
        for _ in range(_ATTEMPTS):
            reply = await client.script(
                _COMMIT, list(self._keys), [json.dumps(self._checks), json.dumps(self._writes), *self._values]
            )
            if reply == 0:
                return
            if reply not in self._remedies:
                break
            await self._remedies[reply](client)
        raise StaleError


async def retry_when_stale(step: Callable[[], Awaitable[_T]], what: str) -> _T:
    """Run a read-compute-commit step again while others get in between.

    Raises:
        ConflictError: they did so every time (`CS_CONFLICT_CONCURRENT`).
    """
    for attempt in range(_ATTEMPTS):
        try:
            return await step()
        except StaleError:
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt + 1, 16)))  # noqa: S311 - jitter
    raise ConflictError("CS_CONFLICT_CONCURRENT", f"{what} is being changed by others; try again")
