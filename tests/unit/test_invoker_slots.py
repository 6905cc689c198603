"""Messages that find no slot come back one after the other, however many there are."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import cast

import pytest
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.store.slots import SlotStore
from cs_invoker.slots import Slots

ONE, OTHER = FunctionRef(tenant="t_a", function="one"), FunctionRef(tenant="t_a", function="other")


def make() -> Slots:
    return Slots(cast(SlotStore, None), timedelta(seconds=10), random.Random(1))


@pytest.mark.parametrize(("most", "looks"), [(1, 100), (10, 500), (100, 2_000)])
def test_a_backlog_is_looked_at_a_bounded_number_of_times_a_second(most: int, looks: int) -> None:
    slots = make()
    waits = [slots.wait(ONE, most, 100.0).total_seconds() for _ in range(5_000)]
    assert waits == sorted(waits)
    assert sum(wait <= 1.0 for wait in waits) <= looks + 1


def test_few_messages_and_other_versions_do_not_wait_for_a_backlog() -> None:
    slots = make()
    for _ in range(5_000):
        slots.wait(ONE, 1, 100.0)
    assert slots.wait(OTHER, 1, 100.0) <= timedelta(milliseconds=25)
    # When the backlog is over, so is the waiting.
    assert slots.wait(ONE, 1, 300.0) <= timedelta(milliseconds=25)


def test_versions_that_nobody_waits_for_are_forgotten() -> None:
    slots = make()
    for number in range(3_000):
        slots.wait(FunctionRef(tenant="t_a", function="f", version=number + 1), 1, float(number))
    assert len(slots._turns) <= 1_001
