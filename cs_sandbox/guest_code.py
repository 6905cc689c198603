"""The guest's own JavaScript as bytecode, compiled once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from cs_sandbox.engine import Engine, ScriptError

GUEST_PREFIX = "cs:"
"""File names of guest scripts in stacks begin with this; their lines are left out of what users see."""


@dataclass(frozen=True, slots=True)
class GuestCode:
    """Bytecode of the guest's scripts. Each is a script whose value is a function."""

    prelude: bytes
    web: bytes
    fetch: bytes


@cache
def guest_code() -> GuestCode:
    """Compile the guest's scripts. The zygote calls this before it forks the first cell."""
    engine = Engine()
    try:
        return GuestCode(*(_compile(engine, name) for name in ("prelude", "web", "fetch")))
    finally:
        engine.close()


def _compile(engine: Engine, name: str) -> bytes:
    source = resources.files("cs_sandbox").joinpath("guest", f"{name}.js").read_bytes()
    try:
        return engine.compile_script(source, f"{GUEST_PREFIX}{name}")
    except ScriptError:
        raise SyntaxError(f"guest script {name}: {engine.describe()}") from None
