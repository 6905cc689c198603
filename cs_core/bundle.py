"""Canonical bundles: the same files give the same bytes, whoever packs them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from cs_core.errors import TooLargeError, ValidationError
from cs_core.names import Violations

MAX_PATH_BYTES = 256


@dataclass(frozen=True, slots=True)
class Bundle:
    """A canonical tar and its sha256 in hex."""

    data: bytes
    sha256: str


def check_path(path: str, field: str) -> None:
    """Raise ValidationError unless `path` is relative, in parts that are neither empty nor dots, and printable."""
    parts = path.split("/")
    if not path or len(path.encode()) > MAX_PATH_BYTES:
        raise ValidationError.field(field, f"must be 1 to {MAX_PATH_BYTES} bytes")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
        raise ValidationError.field(field, "must be relative, printable, with '/' between parts that are not dots")


def pack(files: Mapping[str, bytes], *, max_bytes: int, max_files: int) -> Bundle:
    """Pack files: a tar with sorted names, zero times and owners, mode 0644.

    Raises:
        ValidationError: a path breaks its rule, is a folder of another, or there are too many files or none.
        TooLargeError: the bundle is over `max_bytes`.
    """
    violations = Violations()
    if not files:
        violations.add("files", "required")
    if len(files) > max_files:
        violations.add("files", f"must be at most {max_files}")
    for path in files:
        violations.check(check_path, path, f"files[{path[:80]}]")
        parts = path.split("/")
        if any("/".join(parts[:end]) in files for end in range(1, len(parts))):
            violations.add(f"files[{path[:80]}]", "lies below another file")
    violations.raise_if_any()
    if sum(len(data) for data in files.values()) > max_bytes:
        raise TooLargeError(f"the bundle is over {max_bytes} bytes")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(path)
            entry.size = len(files[path])
            archive.addfile(entry, io.BytesIO(files[path]))
    data = buffer.getvalue()
    if len(data) > max_bytes:
        raise TooLargeError(f"the bundle is {len(data)} bytes, the limit is {max_bytes}")
    return Bundle(data, hashlib.sha256(data).hexdigest())


def unpack(data: bytes, *, max_bytes: int, max_files: int) -> dict[str, bytes]:
    """Read the files of a bundle, trusting nothing about it.

    Raises:
        ValidationError: it is no tar, or holds anything but plain files under distinct, lawful paths.
        TooLargeError: its files are over `max_bytes` in all.
    """
    files: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                if entry.size < 0:
                    raise ValidationError.field("bundle", "must hold plain files under distinct paths only")
                total += entry.size
                if total > max_bytes or len(files) >= max_files:
                    raise TooLargeError("the bundle unpacks to more than its limit")
                check_path(entry.name, "bundle")
                content = archive.extractfile(entry) if entry.type == tarfile.REGTYPE else None
                if content is None or entry.name in files:
                    raise ValidationError.field("bundle", "must hold plain files under distinct paths only")
                files[entry.name] = content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        # Names that are not UTF-8, sizes that no file has, headers about headers: the library lets these through.
        raise ValidationError.field("bundle", "must be a tar") from error
    return files
