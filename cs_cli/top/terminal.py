"""The terminal of a live view: single keys are read, nothing is echoed, and all is as before at the end.

Whatever ends the view (q, Ctrl-C, SIGTERM, an error) passes through here, so the terminal is never left otherwise.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def keys() -> Iterator[None]:
    """Read single keys for the length of the block. Without a terminal on standard input, nothing changes."""
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        if not sys.stdin.isatty():
            yield
            return
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor)
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    finally:
        signal.signal(signal.SIGTERM, previous)


def wait_for_quit(seconds: float) -> bool:
    """Wait; True as soon as q was pressed, or the keyboard is gone."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
            return False
        readable, _, _ = select.select([sys.stdin], [], [], left)
        # Read past Python's buffer, which would hide from `select` what was typed at once.
        if readable and ((typed := os.read(sys.stdin.fileno(), 64)) == b"" or b"q" in typed.lower()):
            return True
    return False


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
