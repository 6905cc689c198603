"""Pages of a list: sizes, and opaque tokens that only the list which gave them out accepts."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cs_core.errors import ValidationError

_CHECK_BYTES = 8
DEFAULT_SIZE, MAX_SIZE = 50, 500


def page_size(asked: int, *, default: int = DEFAULT_SIZE, most: int = MAX_SIZE) -> int:
    """The size of a page: `default` for 0, at most `most`.

    Raises:
        ValidationError: it is negative.
    """
    if asked < 0:
        raise ValidationError.field("page_size", "must be 0 or more")
    return min(asked or default, most)


def _check(kind: str, scope: tuple[str, ...]) -> bytes:
    return hashlib.blake2b(json.dumps([kind, *scope]).encode(), digest_size=_CHECK_BYTES).digest()


def encode(kind: str, scope: tuple[str, ...], position: Any) -> str:
    """Make a token for a position (any JSON value) in the list of `kind` over `scope`."""
    return base64.urlsafe_b64encode(_check(kind, scope) + json.dumps(position).encode()).decode().rstrip("=")


def decode(kind: str, scope: tuple[str, ...], token: str) -> Any:
    """Read a token back; None for an empty one.

    Raises:
        ValidationError: it was not given out by this list (`CS_VALIDATION_PAGE_TOKEN`).
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if raw[:_CHECK_BYTES] == _check(kind, scope):
            return json.loads(raw[_CHECK_BYTES:])
    except ValueError:
        pass
    raise ValidationError("CS_VALIDATION_PAGE_TOKEN", "page_token: was not given out by this list")
