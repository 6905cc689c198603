"""Takes the body of an answer, undoes its compression, and stops at a limit: of what came, and of what it becomes."""

from __future__ import annotations

import zlib
from typing import Final

ACCEPTED: Final = "gzip, deflate"
"""The encodings that are asked for. Any other is passed on as it is, and the header says so."""
_GZIP: Final = 16 + zlib.MAX_WBITS


class TooMuchError(Exception):
    """The body is over the limit."""


class Body:
    """Collects a body.

    Args:
        encoding: the header `content-encoding`.
        limit: bytes of the body, before and after it is decoded.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding.strip().lower().removeprefix("x-")
        self._limit = limit
        self._received = 0
        self._data = bytearray()
        self._inflate = self._start()

    def _start(self) -> zlib._Decompress | None:
        if self._encoding == "gzip":
            return zlib.decompressobj(_GZIP)
        return zlib.decompressobj() if self._encoding == "deflate" else None

    def feed(self, chunk: bytes) -> None:
        """Take the next part. Raises TooMuchError, and zlib.error for what is not compressed as it says."""
        first = self._received == 0
        self._received += len(chunk)
        if self._received > self._limit:
            raise TooMuchError
        if self._inflate is None:
            self._data += chunk
            return
        try:
            self._decode(self._inflate, chunk)
        except zlib.error:
            if self._encoding != "deflate" or not first:
                raise
            # Some servers mean the bare format by this name.
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            self._decode(self._inflate, chunk)

    def _decode(self, inflate: zlib._Decompress, chunk: bytes) -> None:
        while chunk:
            # One byte more than there is room for tells that it is too much, without making all of it.
            self._data += inflate.decompress(chunk, self._limit - len(self._data) + 1)
            if len(self._data) > self._limit:
                raise TooMuchError
            chunk = inflate.unconsumed_tail
            if inflate.eof and inflate.unused_data and self._encoding == "gzip":
                chunk, inflate = inflate.unused_data, zlib.decompressobj(_GZIP)
                self._inflate = inflate

    def finish(self) -> bytes:
        """The whole body. Raises zlib.error when it ends before its end."""
        if self._inflate is not None and self._received and not self._inflate.eof:
            raise zlib.error("the compressed body is cut short")
        return bytes(self._data)
