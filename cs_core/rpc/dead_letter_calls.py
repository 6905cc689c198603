"""The calls of AdminService that handle dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.admin_service_pb2_grpc import AdminServiceServicer
from codesous.admin.v1.dead_letter_pb2 import DeadLetterFilter, DeadLetterSummary, Redrive

from cs_core.clock import from_timestamp
from cs_core.codeq.contract import DeadMessage
from cs_core.errors import NotHereError, ValidationError
from cs_core.rpc import paging
from cs_core.rpc.context import Context

REDRIVES_PER_SECOND, REDRIVES_PER_SECOND_MAX = 10, 1_000
IDS_MAX, ID_CHARS_MAX = 1_000, 128


class DeadLetterDesk(Protocol):
    """Handles the requests that were given up. Raises NotFoundError, ConflictError and UnavailableError."""

    async def find(
        self, chosen: DeadLetterFilter, *, after: tuple[int, str] | None, limit: int
    ) -> tuple[list[DeadMessage], tuple[int, str] | None]:
        """Some of them, oldest first, and where to go on."""
        ...

    async def get(self, dead_letter_id: str) -> DeadMessage:
        """One of them."""
        ...

    async def redrive(
        self, dead_letter_ids: Sequence[str], chosen: DeadLetterFilter, *, version: int, rate: int, dry_run: bool
    ) -> list[Redrive]:
        """Run some again."""
        ...

    async def purge(self, dead_letter_ids: Sequence[str], chosen: DeadLetterFilter, *, dry_run: bool) -> int:
        """Remove some."""
        ...


class DeadLetterCalls(AdminServiceServicer):
    """A part of the admin service of one process. Without a desk every call answers CS_UNIMPLEMENTED."""

    def __init__(self, desk: DeadLetterDesk | None) -> None:
        self._given_desk = desk

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        """See the contract."""
        desk, chosen = self._desk(), _checked(request.filter)
        scope = (chosen.SerializeToString(deterministic=True).hex(),)
        page = paging.Page("dead_letters", scope, request.page_size, request.page_token)
        after = page.after_pair()
        found, last = await desk.find(chosen, after=after, limit=page.size)
        return pb.ListDeadLettersResponse(
            dead_letters=[_summary(letter) for letter in found], next_page_token=page.next_token(last)
        )

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Context) -> pb.GetDeadLetterResponse:
        """See the contract."""
        _check_ids([request.dead_letter_id])
        letter = await self._desk().get(request.dead_letter_id)
        return pb.GetDeadLetterResponse(dead_letter=_summary(letter), envelope=letter.envelope.SerializeToString())

    async def RedriveDeadLetters(
        self, request: pb.RedriveDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        """See the contract."""
        _check_ids(request.dead_letter_ids)
        rate = request.rate_per_second or REDRIVES_PER_SECOND
        if rate > REDRIVES_PER_SECOND_MAX:
            raise ValidationError.field("rate_per_second", f"must be at most {REDRIVES_PER_SECOND_MAX}")
        redrives = await self._desk().redrive(
            request.dead_letter_ids,
            _checked(request.filter),
            version=request.version,
            rate=rate,
            dry_run=request.dry_run,
        )
        return pb.RedriveDeadLettersResponse(redrives=redrives)

    async def PurgeDeadLetters(
        self, request: pb.PurgeDeadLettersRequest, context: Context
    ) -> pb.PurgeDeadLettersResponse:
        """See the contract."""
        _check_ids(request.dead_letter_ids)
        purged = await self._desk().purge(request.dead_letter_ids, _checked(request.filter), dry_run=request.dry_run)
        return pb.PurgeDeadLettersResponse(purged=purged)

    def _desk(self) -> DeadLetterDesk:
        if self._given_desk is None:
            raise NotHereError("dead letters are", "cs-http-gateway")
        return self._given_desk


def _check_ids(dead_letter_ids: Sequence[str]) -> None:
    if len(dead_letter_ids) > IDS_MAX:
        raise ValidationError.field("dead_letter_ids", f"must be at most {IDS_MAX}")
    for dead_letter_id in dead_letter_ids:
        if not 0 < len(dead_letter_id) <= ID_CHARS_MAX:
            raise ValidationError.field("dead_letter_id", f"must be 1 to {ID_CHARS_MAX} characters")


def _checked(chosen: DeadLetterFilter) -> DeadLetterFilter:
    for name in ("start_time", "end_time"):
        try:
            from_timestamp(getattr(chosen, name))
        except (ValueError, OverflowError) as error:
            raise ValidationError.field(f"filter.{name}", "must be a moment in time") from error
    return chosen


def _summary(letter: DeadMessage) -> DeadLetterSummary:
    request = letter.envelope.invocation_request
    return DeadLetterSummary(
        dead_letter_id=letter.id,
        cause=letter.envelope.dead_letter,
        function=request.function,
        activation_id=request.activation_id,
        redrive_activation_ids=letter.redrives,
    )
