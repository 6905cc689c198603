"""Memory that holds machine code: none of it may be writable in a cell.

The filter lets a cell make no memory executable, but what is executable and writable before the filter is loaded stays
so. The library that makes C callbacks of Python functions leaves such a page behind: with it, whoever can write to a
cell's memory could write machine code. All callbacks are made before the first fork, so the page is sealed there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_PROT_READ_EXEC: Final = 1 | 4
_MAPS: Final = Path("/proc/self/maps")


def seal_code() -> str:
    """Take the right to write from every page that is executable; "" or what failed. No callback can be made after."""
    for start, end in list(_writable_code()):
        if _libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _PROT_READ_EXEC) != 0:
            return os.strerror(ctypes.get_errno())
    return "a page that is executable stays writable" if any(_writable_code()) else ""


def _writable_code() -> Iterator[tuple[int, int]]:
    for line in _MAPS.read_text().splitlines():
        addresses, rights = line.split(maxsplit=2)[:2]
        if "w" in rights and "x" in rights:
            start, end = (int(part, 16) for part in addresses.split("-"))
            yield start, end
