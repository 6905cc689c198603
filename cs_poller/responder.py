"""Answering tasks: each by its owner, until Cadence took the answer or refused it.

Theory of operation. Cadence takes one answer per attempt and refuses all others, so an answer that was refused is
final, and one whose fate is not known (no answer came back) may be sent again. The owner is looked up before each try:
an instance that was thought dead, and whose task another adopted, answers nothing.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Protocol

import structlog
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord

from cs_core.backoff import Backoff
from cs_core.clock import Clock, from_timestamp
from cs_core.errors import CadenceRefusedError, UnavailableError
from cs_core.store.cadence_tasks import CadenceTaskStore

from .answers import Answer, Canceled, Completed
from .metrics import Metrics
from .persistence import insist

_log = structlog.get_logger(__name__)


class Respond(Protocol):
    """Sends an answer to Cadence."""

    async def __call__(self, token: bytes, answer: Answer, identity: str) -> None:
        """Raises CadenceRefusedError when Cadence refuses it, UnavailableError when its fate is not known."""
        ...


class Responder:
    """Gives answers. `late` is how long one is tried after Cadence gave the attempt up."""

    def __init__(
        self, respond: Respond, tasks: CadenceTaskStore, clock: Clock, late: timedelta, metrics: Metrics
    ) -> None:
        self._respond = respond
        self._tasks = tasks
        self._clock = clock
        self._late = late
        self._metrics = metrics

    async def give(self, record: CadenceTaskRecord, answer: Answer) -> None:
        """Answer a task and forget it, unless it is another instance's."""
        outcome = await self._send(record, answer)
        self._metrics.count_answer(outcome)
        _log.info("answered", activation_id=record.activation_id, tenant=record.tenant, outcome=outcome)
        await self.forget(record)

    async def forget(self, record: CadenceTaskRecord) -> None:
        """Forget a task that needs no answer any more. Best effort: who adopts it is refused, and forgets it."""
        try:
            await insist(lambda: self._tasks.forget(record), self._clock, self._clock.now() + self._late)
        except UnavailableError:
            _log.warning("an answered task was not forgotten", activation_id=record.activation_id)

    async def _send(self, record: CadenceTaskRecord, answer: Answer) -> str:
        """What became of the answer: a word for the metrics."""
        until = from_timestamp(record.expire_time) + self._late
        backoff = Backoff()
        while True:
            try:
                if not await self._tasks.owns(record):
                    return "adopted_by_another"
                await self._respond(record.task_token, answer, record.identity)
            except CadenceRefusedError as error:
                _log.warning("Cadence refused an answer", activation_id=record.activation_id, error=error.message)
                return "refused"
            except UnavailableError as error:
                wait = backoff.next()
                if (until - self._clock.now()).total_seconds() < wait:
                    _log.warning("an answer was given up", activation_id=record.activation_id, error=error.message)
                    return "given_up"
                await asyncio.sleep(wait)
            else:
                return _word(answer)


def _word(answer: Answer) -> str:
    match answer:
        case Completed():
            return "completed"
        case Canceled():
            return "canceled"
        case _:
            return "failed"
