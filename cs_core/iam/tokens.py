"""From access tokens to principals: what was verified is remembered, and one token is verified once at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from codesous.type.v1.principal_pb2 import Principal

from cs_core.caches import CacheView, Lookups
from cs_core.clock import Clock
from cs_core.errors import CodeSousError
from cs_core.iam.claims import invalid

MAX_TOKEN_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Verified:
    """A principal, and until when it may be believed without asking again, in seconds since 1970."""

    principal: Principal
    until: float


class TokenSource(Protocol):
    """A way of verifying tokens."""

    @property
    def due(self) -> bool:
        """Whether `refresh` has something to do."""
        ...

    @property
    def generation(self) -> int:
        """Changes when what was verified before must be verified again."""
        ...

    async def refresh(self) -> None:
        """Bring what tokens are verified with up to date."""
        ...

    async def verify(self, token: str) -> Verified:
        """Verify a token. Raises AuthenticationError or UnavailableError."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    verified: Verified
    generation: int


class TokenVerifier:
    """Turns tokens into principals. A verified token is remembered by its hash until it expires."""

    def __init__(self, source: TokenSource, clock: Clock, remembered: int) -> None:
        """`remembered` is the most tokens that are kept in mind; 0: every call verifies."""
        self._source = source
        self._clock = clock
        self._most = remembered
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[Verified]] = {}
        self._lookups = Lookups()
        self.cache = CacheView("tokens", remembered, lambda: len(self._known), self._forget_all, self._lookups)

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token. Callers must not change it.

        Raises:
            AuthenticationError: malformed, wrongly signed, of another issuer or audience, odd, expired or revoked.
            UnavailableError: it cannot be told (`CS_AUTHN_UNAVAILABLE`).
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise invalid("it is too long")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise invalid("it is malformed")
        if self._source.due:
            await self._source.refresh()
        if (known := self.remembered(token)) is not None:
            return known
        self._lookups.misses += 1
        return (await self._once(_digest(token), token)).principal

    def remembered(self, token: str) -> Principal | None:
        """Return the principal of a token that was verified before and may still be believed, without waiting."""
        if self._source.due:
            return None
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None:
            return None
        if known.verified.until <= self._clock.now().timestamp() or known.generation != self._source.generation:
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        self._lookups.hits += 1
        return known.verified.principal

    async def close(self) -> None:
        """Let go of connections."""
        await self._source.close()

    def _forget_all(self) -> int:
        count = len(self._known)
        self._known.clear()
        return count

    async def _once(self, digest: bytes, token: str) -> Verified:
        """Verify, or wait for another caller with the same token that does."""
        while (running := self._running.get(digest)) is not None:
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                if not running.cancelled():
                    raise
                # Its caller went away, not ours: verify it here.
        future: asyncio.Future[Verified] = asyncio.get_running_loop().create_future()
        self._running[digest] = future
        try:
            verified = await self._source.verify(token)
        except CodeSousError as error:
            future.set_exception(error)
            future.exception()  # nobody else may be waiting
            raise
        except BaseException:
            future.cancel()
            raise
        else:
            future.set_result(verified)
            self._remember(digest, verified)
            return verified
        finally:
            del self._running[digest]

    def _remember(self, digest: bytes, verified: Verified) -> None:
        if self._most:
            self._known[digest] = _Known(verified, self._source.generation)
            if len(self._known) > self._most:
                self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    # The token itself is not kept: memory that leaks must not hold what lets a thief in.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
