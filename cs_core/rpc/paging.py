"""Pages of a list: sizes, and opaque tokens that only the list which gave them out accepts."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cs_core.errors import ValidationError

_CHECK_BYTES = 8
# Anyone can work the check out: it tells lists apart and keeps nobody from writing a position of his own.
_TOKEN_CHARS, _NAME_CHARS, _NUMBER_MAX = 1024, 256, 2**53
DEFAULT_SIZE, MAX_SIZE = 50, 500


class Page:
    """One page of a list: how much, and after what.

    Args:
        kind: the list, for example `functions`.
        scope: what the list is over; a token of another scope is refused.
        size: items that were asked for; 0 is `default`, more than `most` is `most`.
        token: where to go on; empty for the first page.

    Raises:
        ValidationError: the size is negative, or the token is not of this list (`CS_VALIDATION_PAGE_TOKEN`).
    """

    def __init__(
        self,
        kind: str,
        scope: tuple[str, ...],
        size: int,
        token: str,
        *,
        default: int = DEFAULT_SIZE,
        most: int = MAX_SIZE,
    ) -> None:
        if size < 0:
            raise ValidationError.field("page_size", "must be 0 or more")
        self.size = min(size or default, most)
        self._check = hashlib.blake2b(json.dumps([kind, *scope]).encode(), digest_size=_CHECK_BYTES).digest()
        self._position: Any = self._decode(token) if token else None

    def after_name(self) -> str:
        """The position of a list by name; empty for the first page. Raises ValidationError on any other position."""
        match self._position:
            case None:
                return ""
            case str() as name if len(name) <= _NAME_CHARS and name.isprintable():
                return name
        raise _foreign()

    def number(self) -> int | None:
        """The position of a list by number; None for the first page. Raises ValidationError on any other position."""
        return None if self._position is None else _number(self._position)

    def after_pair(self) -> tuple[int, str] | None:
        """The position of a list by number and id; None for the first page. Raises ValidationError on any other."""
        match self._position:
            case None:
                return None
            case [number, str() as name] if len(name) <= _NAME_CHARS and name.isprintable():
                return _number(number), name
        raise _foreign()

    def next_token(self, position: Any) -> str:
        """Make the token of the page that begins at `position` (any JSON value); empty for None: no more pages."""
        if position is None:
            return ""
        return base64.urlsafe_b64encode(self._check + json.dumps(position).encode()).decode().rstrip("=")

    def _decode(self, token: str) -> Any:
        if len(token) > _TOKEN_CHARS:
            raise _foreign()
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            if raw[:_CHECK_BYTES] == self._check:
                return json.loads(raw[_CHECK_BYTES:])
        except (ValueError, RecursionError):
            pass
        raise _foreign()


def _number(value: Any) -> int:
    # A bool is an int in Python, and not in JSON.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _NUMBER_MAX:
        raise _foreign()
    return value


def _foreign() -> ValidationError:
    return ValidationError("CS_VALIDATION_PAGE_TOKEN", "page_token: was not given out by this list")
