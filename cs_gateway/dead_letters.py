"""Requests that were given up: find them, run them again as new activations, remove them.

Theory of operation. A dead letter stays when it is redriven, and names the activations that redrove it; each of those
names the dead letter and the activation that it belonged to. The id of a redriving activation follows from the dead
letter and from how often it was redriven, and it is noted last: a redrive that breaks off between two steps meets its
own activation when it is repeated, and runs nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

from codesous.admin.v1.dead_letter_pb2 import DeadLetterFilter, Redrive
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.type.v1.attempt_pb2 import Lineage

from cs_core import ids
from cs_core.clock import Clock, from_timestamp, to_timestamp
from cs_core.codeq import Queue
from cs_core.codeq.contract import INVOKE, DeadMessage
from cs_core.config import LimitSettings
from cs_core.errors import ConflictError, NotFoundError
from cs_core.store.activations import ActivationStore
from cs_core.store.versions import VersionStore
from cs_core.submission import Submitter
from cs_core.trace_context import TraceContext, new_trace

_PAGE = 200


class DeadLetters:
    """The dead letters of `cs.invoke`."""

    def __init__(
        self,
        queue: Queue,
        activations: ActivationStore,
        versions: VersionStore,
        limits: LimitSettings,
        clock: Clock,
        start_trace: Callable[[], TraceContext] = new_trace,
    ) -> None:
        self._queue = queue
        self._submitter = Submitter(activations, queue)
        self._versions = versions
        self._stay = timedelta(seconds=limits.async_age)
        self._clock = clock
        self._start_trace = start_trace

    async def find(
        self, chosen: DeadLetterFilter, *, after: tuple[int, str] | None, limit: int
    ) -> tuple[list[DeadMessage], tuple[int, str] | None]:
        """Up to `limit` that the filter selects, oldest first, and the position to go on behind (None: all)."""
        found: list[DeadMessage] = []
        async for letter in self._select(chosen, after):
            if len(found) == limit:
                return found, found[-1].position
            found.append(letter)
        return found, None

    async def get(self, dead_letter_id: str) -> DeadMessage:
        """Read one. Raises NotFoundError."""
        letter = await self._queue.get_dead_letter(INVOKE, dead_letter_id)
        if letter is None:
            raise NotFoundError("dead_letter", dead_letter_id)
        return letter

    async def redrive(
        self, dead_letter_ids: Sequence[str], chosen: DeadLetterFilter, *, version: int, rate: int, dry_run: bool
    ) -> list[Redrive]:
        """Run again those that are named, or else those that the filter selects and nobody redrove, `rate` a second.

        Raises:
            NotFoundError: a named one, or the version, is not there; nothing more is redriven then.
            ConflictError: a named one holds no request.
        """
        letters = [await self.get(name) for name in dict.fromkeys(dead_letter_ids)]
        if not letters:
            letters = [
                letter async for letter in self._select(chosen, None) if _is_request(letter) and not letter.redrives
            ]
        # All are looked at before the first is redriven: a mistake in the call redrives nothing.
        requests = [await self._request_of(letter, version) for letter in letters]
        done: list[Redrive] = []
        for letter, request in zip(letters, requests, strict=True):
            if not dry_run:
                if done:
                    await asyncio.sleep(1 / rate)
                await self._submit(letter, request)
            done.append(
                Redrive(
                    dead_letter_id=letter.id,
                    activation_id="" if dry_run else request.activation_id,
                    version=request.function.version,
                )
            )
        return done

    async def purge(self, dead_letter_ids: Sequence[str], chosen: DeadLetterFilter, *, dry_run: bool) -> int:
        """Remove those that are named, or else those that the filter selects; returns how many."""
        if dead_letter_ids:
            names = [(await self.get(name)).id for name in dict.fromkeys(dead_letter_ids)]
        else:
            names = [letter.id async for letter in self._select(chosen, None)]
        if dry_run:
            return len(names)
        return sum([await self._queue.remove_dead_letter(INVOKE, name) for name in names])

    async def _select(self, chosen: DeadLetterFilter, after: tuple[int, str] | None) -> AsyncIterator[DeadMessage]:
        while page := await self._queue.list_dead_letters(INVOKE, limit=_PAGE, after=after):
            for letter in page:
                if _matches(letter, chosen):
                    yield letter
            after = page[-1].position

    async def _request_of(self, letter: DeadMessage, version: int) -> InvocationRequest:
        if not _is_request(letter):
            raise ConflictError("CS_CONFLICT_STATE", f"dead letter {letter.id} holds no request that could be run")
        request = InvocationRequest()
        request.CopyFrom(letter.envelope.invocation_request)
        ref = request.function
        request.redrive_of.CopyFrom(Lineage(dead_letter_id=letter.id, activation_id=request.activation_id))
        request.activation_id = ids.activation_id_from(ref.tenant, "redrive", letter.id, str(len(letter.redrives)))
        request.request_id = ids.request_id()
        request.reply_to = ""
        request.traceparent, request.tracestate = self._start_trace().traceparent, ""
        if version:
            ref.version, ref.ref = version, str(version)
        if await self._versions.get(ref.tenant, ref.namespace, ref.function, ref.version) is None:
            raise NotFoundError("version", f"{ref.namespace}/{ref.function}@{ref.version}")
        return request

    async def _submit(self, letter: DeadMessage, request: InvocationRequest) -> None:
        now = self._clock.now()
        request.accept_time.CopyFrom(to_timestamp(now))
        request.deadline.CopyFrom(to_timestamp(now + self._stay))
        digest = hashlib.sha256(request.event).digest()
        await self._submitter.submit(request, digest, lane=Lane.LANE_BACKGROUND, repeatable=True)
        await self._queue.note_redrive(INVOKE, letter.id, request.activation_id)


def _is_request(letter: DeadMessage) -> bool:
    return letter.envelope.WhichOneof("body") == "invocation_request" and bool(
        letter.envelope.invocation_request.function.tenant
    )


def _matches(letter: DeadMessage, chosen: DeadLetterFilter) -> bool:
    ref, cause = letter.envelope.invocation_request.function, letter.envelope.dead_letter
    wanted = (
        (chosen.tenant, ref.tenant or letter.envelope.tenant),
        (chosen.namespace, ref.namespace),
        (chosen.function, ref.function),
        (chosen.reason, cause.reason),
    )
    if any(asked and asked != found for asked, found in wanted):
        return False
    if chosen.HasField("start_time") and letter.time_ms < from_timestamp(chosen.start_time).timestamp() * 1000:
        return False
    return not (chosen.HasField("end_time") and letter.time_ms >= from_timestamp(chosen.end_time).timestamp() * 1000)
