"""The event of an activation: JSON in UTF-8."""

from __future__ import annotations

import json
from typing import Any

from cs_core.errors import ValidationError


def check_json(data: bytes, field: str) -> None:
    """Raise ValidationError unless `data` is JSON in UTF-8, as a function's engine will read it."""
    try:
        # Integers as floats: Python refuses very long integers, JavaScript does not.
        json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, parse_int=float)
    except RecursionError as error:
        raise ValidationError.field(field, "is nested too deeply") from error
    except ValueError as error:
        raise ValidationError.field(field, "must be JSON in UTF-8") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
