"""`manifest.json`: reading it, and its rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from codesous.runtime.v1.manifest_pb2 import Manifest
from google.protobuf import json_format

from cs_control.capabilities import check_capabilities
from cs_control.version_config import check_config
from cs_core.bundle import check_path
from cs_core.config import LimitSettings
from cs_core.errors import ValidationError
from cs_core.manifest_json import parse_manifest
from cs_core.names import Violations

FILE: Final = "manifest.json"
RUNTIMES: Final = ("cs-js",)
DEFAULT_ENTRY: Final = "index.js"
DESCRIPTION_CHARS: Final = 256
_MAX_BYTES: Final = 64 * 1024
_REASON: Final = "CS_VALIDATION_MANIFEST"


def read_manifest(files: Mapping[str, bytes], limits: LimitSettings) -> Manifest:
    """Read and check the manifest of a bundle; what it leaves out stays left out.

    Raises:
        ValidationError: it is missing, is no JSON of a Manifest, or breaks a rule (`CS_VALIDATION_MANIFEST`).
    """
    data = files.get(FILE)
    if data is None:
        raise _refusal("required", f"the bundle has no {FILE}")
    if len(data) > _MAX_BYTES:
        raise _refusal(f"must be at most {_MAX_BYTES} bytes", f"{FILE} is too large")
    try:
        manifest = parse_manifest(data.decode("utf-8"))
    except (UnicodeDecodeError, RecursionError) as error:
        raise _refusal("must be JSON in UTF-8", f"{FILE} is not JSON") from error
    except json_format.ParseError as error:
        # The library's first line names the place; the ones after it list its own tables.
        raise _refusal("must be the JSON of a Manifest", f"{FILE}: {str(error).splitlines()[0]}") from error
    violations = Violations()
    _check(manifest, files, limits, violations)
    violations.raise_if_any(_REASON)
    return manifest


def entry_of(manifest: Manifest) -> str:
    """The path of the module whose default export is the handler."""
    return manifest.entry or DEFAULT_ENTRY


def _check(manifest: Manifest, files: Mapping[str, bytes], limits: LimitSettings, violations: Violations) -> None:
    if manifest.runtime not in RUNTIMES:
        violations.add(f"{FILE}: runtime", f"must be one of {', '.join(RUNTIMES)}")
    entry = entry_of(manifest)
    violations.check(check_path, entry, f"{FILE}: entry")
    if entry not in files:
        violations.add(f"{FILE}: entry", f"the bundle has no file {entry[:80]}")
    check_description(manifest.description, f"{FILE}: description", violations)
    if manifest.HasField("capabilities"):
        check_capabilities(manifest.capabilities, f"{FILE}: capabilities", violations)
    if manifest.HasField("config"):
        check_config(manifest.config, f"{FILE}: config", limits, violations)


def check_description(text: str, field: str, violations: Violations) -> None:
    """Note it when a description is not one line of at most 256 characters."""
    if len(text) > DESCRIPTION_CHARS or not (text.isprintable()):
        violations.add(field, f"must be one line of at most {DESCRIPTION_CHARS} characters")


def _refusal(rule: str, message: str) -> ValidationError:
    refusal = ValidationError.field(FILE, rule)
    return ValidationError(_REASON, message, violations=refusal.violations)
