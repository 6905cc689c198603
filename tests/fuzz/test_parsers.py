"""Every parser that faces outside, on mutated inputs: refused with an error of its own, or parsed; nothing else."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import TARGETS
from tests.support.fuzzing import Target, fuzz, share
from tests.support.scale import long_test


@long_test
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_a_parser_refuses_what_it_does_not_like_and_does_nothing_else(target: Target) -> None:
    fuzz(target, share(short=1_500, full=60_000)).check()
