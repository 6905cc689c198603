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
