"""The driver itself: a bug that is planted is found, whatever kind it is of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from cs_core.errors import ValidationError
from tests.fuzz.targets import TARGETS
from tests.support import fuzzing
from tests.support.fuzzing import Mutator, Target, fuzz

COUNT = 400


def raising(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """A parser that cannot bear one byte."""

    def parser(data: bytes) -> object:
        if b"\xff" in data:
            raise ValueError("planted")
        return parse(data)

    return parser


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_an_error_that_is_none_of_the_targets_is_reported(target: Target) -> None:
    refusals = tuple(kind for kind in target.refusals if not issubclass(ValueError, kind))
    campaign = fuzz(replace(target, parse=raising(target.parse), refusals=refusals), COUNT)
    assert any("ValueError: planted" in str(finding) for finding in campaign.findings)
    assert any(b"\xff" in finding.data for finding in campaign.findings)
    with pytest.raises(AssertionError, match="planted"):
        campaign.check()


def test_an_input_that_costs_too_much_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SLOWEST_SECONDS", 0.05)

    def slow(data: bytes) -> None:
        until = time.process_time() + 0.06
        while time.process_time() < until:
            pass

    campaign = fuzz(Target("slow", (b"x",), slow, (ValidationError,)), 3)
    assert "processor time" in campaign.findings[0].what


def test_memory_that_grows_with_the_inputs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "GROWTH_BYTES", 8 * 1024 * 1024)
    kept: list[bytearray] = []

    def hoarding(data: bytes) -> None:
        kept.append(bytearray(256 * 1024))
        if len(kept) % 2:
            raise ValidationError.field("x", "refused")

    with pytest.raises(AssertionError, match="memory grew"):
        fuzz(Target("hoarding", (b"x",), hoarding, (ValidationError,)), 100).check()


@pytest.mark.parametrize(("verdict", "message"), [(True, "everything was refused"), (False, "nothing was refused")])
def test_inputs_that_never_get_far_or_are_too_tame_are_reported(verdict: bool, message: str) -> None:
    def parse(data: bytes) -> None:
        if verdict:
            raise ValidationError.field("x", "refused")

    with pytest.raises(AssertionError, match=message):
        fuzz(Target("one-sided", (b"x",), parse, (ValidationError,)), 20).check()


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, second = (list(Mutator("same", (b"hello", b"world")).inputs(200)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 100
