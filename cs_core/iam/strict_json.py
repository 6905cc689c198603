"""JSON as tokens must have it: one object, no key twice, no number that JSON does not have, no nesting without end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn


def parse_object(data: bytes) -> dict[str, Any]:
    """Read an object. Two readers of one document must never find different claims in it.

    Raises:
        ValueError: it is no such object.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_each_key_once, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - it is the document that is wrong
    return found


def _each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
