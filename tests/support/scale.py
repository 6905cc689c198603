"""How large a chaos test is: its short form, as CI runs it, or its full form with CODE_SOUS_TEST_SCALE=full."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

T = TypeVar("T")
FULL = os.environ.get("CODE_SOUS_TEST_SCALE") == "full"


def scaled(*, short: T, full: T) -> T:
    """The value of the form that runs."""
    return full if FULL else short


long_test = pytest.mark.timeout(1800 if FULL else 120)
"""A full form takes minutes."""


def report(test: str, **figures: object) -> None:
    """Print what a test measured; seen with `pytest -s`, and beside a failure."""
    told = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items())
    print(f"\n{test}: {told}", flush=True)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
