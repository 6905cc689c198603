"""The file beside a function with what the mesh would give it: values of `cs.env` and `cs.secrets`, and the way out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from cs_cli.failure import CommandError
from cs_core.config import EgressSettings

FILE: Final = ".cs-test.toml"
"""Hidden, so that it is never uploaded with the function."""
_SECTIONS: Final = frozenset({"env", "secrets", "egress"})


@dataclass(frozen=True, slots=True)
class LocalValues:
    """What a local run is given."""

    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the manifest's."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    egress: EgressSettings = field(default_factory=EgressSettings)


def read_local_values(folder: Path) -> LocalValues:
    """Read the file in `folder`; nothing when there is none. Raises CommandError when it cannot be understood."""
    path = folder / FILE
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return LocalValues()
    except (OSError, ValueError) as error:
        raise CommandError("CS_CLI_NO_FILE", f"{path} cannot be read: {error}") from error
    unknown = sorted(tree.keys() - _SECTIONS)
    if unknown:
        raise CommandError("CS_CLI_USAGE", f"{path}: [{unknown[0]}] is not known; there are env, secrets and egress")
    try:
        egress = EgressSettings.model_validate(tree.get("egress", {}))
    except ValidationError as error:
        raise CommandError("CS_CLI_USAGE", f"{path}: [egress]: {error.errors()[0]['msg']}") from error
    return LocalValues(_texts(path, tree, "env"), _texts(path, tree, "secrets"), egress)


def _texts(path: Path, tree: Mapping[str, Any], section: str) -> dict[str, str]:
    found = tree.get(section, {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CommandError("CS_CLI_USAGE", f"{path}: [{section}] must hold names and texts")
    return found
