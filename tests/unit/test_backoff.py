"""Waits between attempts grow, stay under their cap, and differ between processes."""

from __future__ import annotations

import random
from datetime import timedelta

from cs_core.backoff import Backoff


def test_waits_grow_to_the_cap_and_stay_within_half_of_each_step() -> None:
    backoff = Backoff(timedelta(seconds=1), timedelta(seconds=8), random.Random(7))
    steps = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    for step in steps:
        assert step / 2 <= backoff.next() <= step


def test_a_reset_begins_again_at_the_first_step() -> None:
    backoff = Backoff(timedelta(seconds=1), timedelta(seconds=64), random.Random(7))
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1.0


def test_two_processes_do_not_wait_in_step() -> None:
    first, second = (Backoff(source=random.Random(seed)) for seed in (1, 2))
    assert [first.next() for _ in range(5)] != [second.next() for _ in range(5)]


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff()
    assert all(backoff.next() <= 2.0 for _ in range(2000))
