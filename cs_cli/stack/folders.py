"""Where a stack keeps its data."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_NAME: Final = ".data"
# A unix socket's address holds 107 bytes and a final NUL; the names below need some of them.
_SOCKET_PATH_MAX: Final = 90


@dataclass(frozen=True, slots=True)
class Folders:
    """The paths of one stack, below its data directory."""

    root: Path

    @property
    def identity(self) -> Path:
        """Key pair of the development issuer."""
        return self.root / "identity"

    @property
    def secret_keys(self) -> Path:
        """Keys that secrets are encrypted with."""
        return self.root / "secret.keys"

    @property
    def store(self) -> Path:
        """Files of redis-server."""
        return self.root / "store"

    @property
    def ledger(self) -> Path:
        """Files of the ledger."""
        return self.root / "ledger"

    @property
    def logs(self) -> Path:
        """Logs of every part, one file each."""
        return self.root / "logs"

    @property
    def settings(self) -> Path:
        """Settings of the services."""
        return self.root / "services.toml"

    @property
    def proxy(self) -> Path:
        """Configuration of the proxy."""
        return self.root / "envoy.yaml"

    @property
    def state(self) -> Path:
        """What runs, for other commands."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Held while the stack runs."""
        return self.root / "lock"

    @property
    def sockets(self) -> Path:
        """Unix sockets: in the data directory, or in a private folder with a short name when that is too deep."""
        if len(os.fsencode(self.root)) <= _SOCKET_PATH_MAX:
            return self.root
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"cs-{os.getuid()}-{digest}"

    def log(self, name: str) -> Path:
        """The log of one part."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make the folders, readable by their owner only. Raises OSError."""
        for folder in (self.root, self.identity, self.store, self.logs, self.sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.sockets.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.sockets} belongs to another user")


def find_data_dir(given: Path | None) -> Path:
    """The data directory: as given, else $CODE_SOUS_DATA_DIR, else the nearest `.data` here or above, else here."""
    if given is not None:
        return given.absolute()
    if named := os.environ.get("CODE_SOUS_DATA_DIR"):
        return Path(named).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / DEFAULT_NAME / "state.json").exists() or (folder / DEFAULT_NAME / "identity").is_dir():
            return folder / DEFAULT_NAME
    return here / DEFAULT_NAME
