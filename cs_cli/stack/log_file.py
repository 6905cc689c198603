"""Reading the log of a part, to its end or as it grows."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import BinaryIO, Final

_TAIL_BYTES: Final = 4 * 1024 * 1024
_LOOK_EVERY: Final = 0.1


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines; nothing when there is no file."""
    try:
        with path.open("rb") as file:
            return _tail(file, count).splitlines()
    except FileNotFoundError:
        return []


def follow_log(path: Path, count: int) -> None:
    """Print the last `count` lines and what is written after them, until interrupted. A new file is followed too."""
    file = path.open("rb")
    try:
        # One reading position for both: nothing that is written in between is skipped.
        _print(_tail(file, count))
        while True:
            replaced = _replaced(path, file.fileno())
            # Read after the look: what was written to the old file until then is in it.
            data = file.read()
            if data:
                _print(data.decode("utf-8", "replace"))
            elif replaced:
                file.close()
                file = path.open("rb")
            else:
                time.sleep(_LOOK_EVERY)
    finally:
        file.close()


def _tail(file: BinaryIO, count: int) -> str:
    """The last `count` lines; the position is behind them then."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(lines[-count:] if count else [])


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _replaced(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
