"""Lua scripts: read once from the package, called by digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script and the digest that the server knows it by."""

    text: str
    sha: str


def load_script(package: str, name: str) -> Script:
    """Read `lua/<name>.lua` of a package."""
    text = files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
