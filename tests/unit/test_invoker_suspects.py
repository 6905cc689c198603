"""Which activations begin in a cell of their own."""

from __future__ import annotations

from cs_core.store.activations import Begun
from cs_invoker.suspects import Suspects


def begun(attempt: int, retries: int = 0) -> Begun:
    return Begun("run", attempt=attempt, retries=retries)


def test_what_was_seen_to_be_cut_short_runs_alone_the_next_time() -> None:
    suspects = Suspects()
    assert not suspects.is_alone("t_a", "1", begun(1))
    suspects.note("t_a", "1")
    assert not suspects.is_alone("t_b", "1", begun(2))
    assert suspects.is_alone("t_a", "1", begun(2))
    assert not suspects.is_alone("t_a", "1", begun(2))


def test_what_others_saw_runs_alone_from_the_second_time_on() -> None:
    assert not Suspects().is_alone("t_a", "1", begun(2))
    assert Suspects().is_alone("t_a", "1", begun(3))


def test_runs_that_the_retry_policy_repeats_were_not_cut_short() -> None:
    assert not Suspects().is_alone("t_a", "1", begun(4, retries=3))
    assert Suspects().is_alone("t_a", "1", begun(5, retries=2))


def test_the_oldest_are_forgotten() -> None:
    suspects = Suspects(most=2)
    for number in "123":
        suspects.note("t_a", number)
    assert [suspects.is_alone("t_a", number, begun(2)) for number in "123"] == [False, True, True]
