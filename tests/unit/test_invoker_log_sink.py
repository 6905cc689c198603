"""Log lines of a run: collected, stored by portions, cut at their limit, none twice and none lost."""

from __future__ import annotations

import asyncio

from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.errors import UnavailableError
from cs_core.store.run_logs import RunLogs
from cs_invoker.log_sink import LogSink
from tests.support.waiting import wait_until


class Stored:
    """A store that may fail, before or after it took the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fail_before = 0
        self.fail_after = 0
        self.owned = True

    async def append(self, logs: RunLogs) -> bool:
        if self.fail_before:
            self.fail_before -= 1
            raise UnavailableError("CS_STORE_UNAVAILABLE", "away")
        if not self.owned:
            return False
        known = max(len(self.lines) - logs.offset, 0)
        self.lines += [line.message for line in logs.lines[known:]]
        if self.fail_after:
            self.fail_after -= 1
            raise UnavailableError("CS_STORE_UNAVAILABLE", "the answer was lost")
        return True


def _line(text: str) -> LogEntry:
    return LogEntry(message=text)


async def test_lines_of_a_short_run_are_left_for_its_result() -> None:
    stored = Stored()
    sink = LogSink(2, 1000, stored.append, portion_after=60)
    for number in range(3):
        sink(_line(str(number)))
    rest = await sink.close()
    assert (rest.offset, [line.message for line in rest.lines]) == (0, ["0", "1", "2"])
    assert {line.attempt for line in rest.lines} == {2}
    assert stored.lines == []


async def test_lines_of_a_run_that_goes_on_are_stored() -> None:
    stored = Stored()
    sink = LogSink(1, 1000, stored.append, portion_after=0.001)
    sink(_line("first"))
    await wait_until(lambda: _is(stored.lines == ["first"]))
    sink(_line("second"))
    await wait_until(lambda: _is(stored.lines == ["first", "second"]))
    rest = await sink.close()
    assert (rest.offset, rest.lines) == (2, ())


async def test_a_store_that_fails_before_or_after_it_took_them_loses_and_doubles_nothing() -> None:
    stored = Stored()
    stored.fail_before, stored.fail_after = 2, 2
    sink = LogSink(1, 1000, stored.append, portion_after=0.001)
    for number in range(5):
        sink(_line(str(number)))
    await wait_until(lambda: _is(stored.fail_before == stored.fail_after == 0))
    sink(_line("5"))
    await wait_until(lambda: _is(len(stored.lines) == 6))
    rest = await sink.close()
    await stored.append(rest)
    assert stored.lines == ["0", "1", "2", "3", "4", "5"]


async def test_lines_over_the_limit_are_replaced_by_one_that_says_so() -> None:
    stored = Stored()
    sink = LogSink(1, 50, stored.append, portion_after=60)
    for _ in range(5):
        sink(_line("x" * 20))
    rest = await sink.close()
    assert [line.message for line in rest.lines[:2]] == ["x" * 20] * 2
    assert "cut" in rest.lines[2].message
    assert len(rest.lines) == 3


async def test_a_run_that_lost_its_owner_stores_nothing_more() -> None:
    stored = Stored()
    stored.owned = False
    sink = LogSink(1, 1000, stored.append, portion_after=0.001)
    sink(_line("zombie"))
    await asyncio.sleep(0)
    rest = await sink.close()
    assert stored.lines == []
    assert [line.message for line in rest.lines] == ["zombie"]


async def _is(condition: bool) -> bool:
    return condition
