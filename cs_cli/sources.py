"""The files of a function on disk, as they become a draft."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from codesous.runtime.v1.manifest_pb2 import Manifest
from google.protobuf import json_format

from cs_cli.failure import CommandError
from cs_core.config import LimitSettings
from cs_core.manifest_json import parse_manifest

_SKIPPED: Final = frozenset({"node_modules", "__pycache__"})
MANIFEST: Final = "manifest.json"
DEFAULT_ENTRY: Final = "index.js"


def read_files(folder: Path) -> dict[str, bytes]:
    """Read every file below `folder` by its path in it; hidden ones and `node_modules` are left out.

    Raises:
        CommandError: there is no such folder, it holds no manifest, a link leads out of it, or it is too large.
    """
    if not folder.is_dir():
        raise CommandError("CS_CLI_NO_SOURCE", f"{folder} is no folder")
    limits = LimitSettings()
    root, files, total = folder.resolve(), dict[str, bytes](), 0
    for path in _walk(folder):
        if not path.resolve().is_relative_to(root):
            raise CommandError("CS_CLI_NO_SOURCE", f"{path} leads out of {folder}")
        if not path.is_file():
            raise CommandError("CS_CLI_NO_SOURCE", f"{path} leads to no file")
        total += path.stat().st_size
        if len(files) >= limits.bundle_files or total > limits.bundle_bytes:
            most = f"{limits.bundle_files} files and {limits.bundle_bytes} bytes"
            raise CommandError("CS_VALIDATION_TOO_LARGE", f"{folder} holds more than a bundle may: {most}")
        files[path.relative_to(folder).as_posix()] = _read(path)
    if MANIFEST not in files:
        raise CommandError("CS_VALIDATION_MANIFEST", f"{folder} has no {MANIFEST}; `cs fn init NAME` makes one")
    return files


def read_manifest(files: dict[str, bytes]) -> Manifest:
    """Read the manifest. Raises CommandError when it is not one; the rules of its fields are the server's to check."""
    try:
        return parse_manifest(files[MANIFEST].decode())
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise CommandError("CS_VALIDATION_MANIFEST", f"{MANIFEST}: {error}") from error


def read_event(source: str, stdin: Iterator[bytes] | None = None) -> bytes:
    """Read an event from a file, or from standard input when `source` is `-`. Raises CommandError unless it is JSON."""
    data = b"".join(stdin) if source == "-" and stdin is not None else _read(Path(source))
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        name = "standard input" if source == "-" else source
        raise CommandError("CS_VALIDATION_MALFORMED", f"{name} is not JSON: {error}") from error
    return data


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file() or path.is_symlink():
            yield path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError("CS_CLI_NO_FILE", f"{path} cannot be read: {error.strerror}") from error
