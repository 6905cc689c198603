"""`cs.secrets` in the mesh: where the values come from, by the settings."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.config import SecretSettings, SettingsError
from cs_core.errors import UnavailableError
from cs_core.sealing import Sealed, Sealer, SealError, load_sealer
from cs_core.store.secrets import SecretStore
from cs_sandbox.host.secret import VALUE_MAX
from cs_sandbox.job import HostCallError

_log = structlog.get_logger(__name__)
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Secrets(Protocol):
    """Every secret of the installation."""

    async def find(self, function: FunctionRef, name: str) -> str | None:
        """The value that a function finds: its namespace's, else its tenant's. Raises HostCallError."""
        ...


class FunctionSecrets:
    """Implements the sandbox's SecretSource for one function."""

    def __init__(self, secrets: Secrets, function: FunctionRef) -> None:
        self._secrets = secrets
        self._function = function

    async def find(self, name: str) -> str | None:
        """See SecretSource.find."""
        return await self._secrets.find(self._function, name)


class NoSecrets:
    """There is no source."""

    async def find(self, function: FunctionRef, name: str) -> str | None:  # noqa: ARG002
        """See Secrets.find."""
        return None


class FolderSecrets:
    """A file for each: `<tenant>/<namespace>/<name>`, else `<tenant>/<name>`. Read anew each time, so it can change.

    One newline at the end is not part of the value. A name that is no plain file name is not found.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, function: FunctionRef, name: str) -> str | None:
        """See Secrets.find."""
        if not _FILE_NAME.fullmatch(name):
            return None
        return await asyncio.to_thread(self._read, function, name)

    def _read(self, function: FunctionRef, name: str) -> str | None:
        tenant = self._folder / function.tenant
        for path in (tenant / function.namespace / name, tenant / name):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unavailable(error) from error
            return _checked(data.removesuffix(b"\n").removesuffix(b"\r"))
        return None


class FileSecrets:
    """One TOML or JSON file: `tenant -> name -> value`, and `tenant -> namespace -> name -> value`.

    Read anew when it has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._tree: dict[str, Any] = {}

    async def find(self, function: FunctionRef, name: str) -> str | None:
        """See Secrets.find."""
        tenant = (await asyncio.to_thread(self._load)).get(function.tenant)
        if not isinstance(tenant, dict):
            return None
        own = tenant.get(function.namespace)
        for place in (own if isinstance(own, dict) else {}, tenant):
            if isinstance(place.get(name), str):
                return _checked(place[name].encode())
        return None

    def _load(self) -> dict[str, Any]:
        try:
            state = self._path.stat()
            seen = (state.st_mtime_ns, state.st_ino)
            if seen != self._seen:
                text = self._path.read_text(encoding="utf-8")
                tree = json.loads(text) if self._path.suffix == ".json" else tomllib.loads(text)
                self._tree = tree if isinstance(tree, dict) else {}
                self._seen = seen
        except (OSError, ValueError) as error:
            raise _unavailable(error) from error
        return self._tree


class StoredSecrets:
    """The platform's own: those of the function's namespace, as they were written last."""

    def __init__(self, store: SecretStore, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def find(self, function: FunctionRef, name: str) -> str | None:
        """See Secrets.find."""
        place = (function.tenant, function.namespace, name)
        try:
            record = await self._store.get(*place)
            if record is None:
                return None
            sealed = Sealed(record.secret.key_id, record.nonce, record.sealed_value)
            return _checked(self._sealer.open(sealed, place))
        except (UnavailableError, SealError) as error:
            raise _unavailable(error) from error


def open_secrets(settings: SecretSettings, store: SecretStore | None = None) -> Secrets:
    """The source that the settings name; `store` is needed for the platform's own. Raises SettingsError."""
    if settings.provider == "store":
        if store is None:
            raise SettingsError("secrets.provider: the store is not at hand here")
        return StoredSecrets(store, load_sealer(Path(settings.key_file)))
    if settings.provider == "none":
        return NoSecrets()
    path = Path(settings.path)
    return FileSecrets(path) if path.suffix in {".toml", ".json"} else FolderSecrets(path)


def _checked(data: bytes) -> str:
    if len(data) > VALUE_MAX:
        raise HostCallError("CS_SECRETS_UNAVAILABLE", f"the secret is over {VALUE_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HostCallError("CS_SECRETS_UNAVAILABLE", "the secret is not UTF-8 text") from None


def _unavailable(error: Exception) -> HostCallError:
    _log.error("secrets cannot be read", error=type(error).__name__)
    return HostCallError("CS_SECRETS_UNAVAILABLE", "the source of secrets cannot be read")
