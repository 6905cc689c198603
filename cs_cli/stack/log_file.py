"""Reading the log of a part, to its end or as it grows."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 4 * 1024 * 1024
_LOOK_EVERY: Final = 0.1


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines; nothing when there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[-count:] if count else []


def follow_log(path: Path, count: int) -> None:
    """Print the last `count` lines and what is written after them, until interrupted. A new file is followed too."""
    for line in last_lines(path, count):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    file = path.open("rb")
    try:
        file.seek(0, os.SEEK_END)
        while True:
            data = file.read()
            if data:
                sys.stdout.write(data.decode("utf-8", "replace"))
                sys.stdout.flush()
            elif _replaced(path, file.fileno()):
                file.close()
                file = path.open("rb")
            else:
                time.sleep(_LOOK_EVERY)
    finally:
        file.close()


def _replaced(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
