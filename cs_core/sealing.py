"""Encrypting values that the store keeps, with keys that it does not keep.

AES-256-GCM with a fresh nonce for each value; what the value belongs to is bound to it, so that a sealed value that is
put in another place does not open. The key file has a key a line, 32 bytes in base64, the newest first: the first one
seals, all of them open. To change the key, put a new first line, write every value again, and take the old line away.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cs_core.config import SettingsError

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class SealError(Exception):
    """A sealed value does not open: its key is not there, or it is not what was sealed here."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as the store may see it."""

    key_id: str
    nonce: bytes
    data: bytes


class Sealer:
    """Seals with the first key, and opens with any.

    Args:
        keys: 32 bytes each, the newest first.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {hashlib.sha256(key).hexdigest()[:16]: AESGCM(key) for key in keys}
        self.key_id = next(iter(self._ciphers))

    def seal(self, value: bytes, place: Sequence[str]) -> Sealed:
        """Seal a value that belongs to `place`."""
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(self.key_id, nonce, self._ciphers[self.key_id].encrypt(nonce, value, _bound(place)))

    def open(self, sealed: Sealed, place: Sequence[str]) -> bytes:
        """The value again. Raises SealError."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise SealError(f"the key {sealed.key_id} is not there")
        try:
            return cipher.decrypt(sealed.nonce, sealed.data, _bound(place))
        except (InvalidTag, ValueError):
            raise SealError("the sealed value was changed, or belongs elsewhere") from None


def _bound(place: Sequence[str]) -> bytes:
    # Lengths before the parts: no two places are the same bytes.
    return b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in place)


def load_sealer(path: Path) -> Sealer:
    """Read a key file. Raises SettingsError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        keys = [base64.b64decode(line, validate=True) for line in lines]
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        raise SettingsError(f"{path}: the keys cannot be read: {type(error).__name__}") from error
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise SettingsError(f"{path}: must have a key a line, {_KEY_BYTES} bytes in base64")
    return Sealer(keys)


def make_key_file(path: Path) -> None:
    """Make a key file with one key, readable by its owner only, unless it is there. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
