"""Looking for syntax errors in the text of modules, inside a cell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from codesous.cell.v1 import frames_pb2

from cs_sandbox.engine import Engine, ScriptError

MODULE_SUFFIXES: Final = (".js", ".mjs")
_MEMORY: Final = 256 * 1024 * 1024
_POSITION: Final = re.compile(r"at (?:.*\()?(\S+?):(\d+):(\d+)\)?\s*$", re.MULTILINE)


def find_faults(files: Mapping[str, bytes]) -> list[frames_pb2.SyntaxFault]:
    """Compile every module of a bundle with what it imports and report each fault once; none is run."""
    faults: dict[tuple[str, int, int, str], frames_pb2.SyntaxFault] = {}
    for path in sorted(files):
        if path.endswith(MODULE_SUFFIXES) and (fault := _compile(path, files)) is not None:
            faults.setdefault((fault.file, fault.line, fault.column, fault.message), fault)
    return list(faults.values())


def _compile(path: str, files: Mapping[str, bytes]) -> frames_pb2.SyntaxFault | None:
    engine = Engine(_MEMORY)
    engine.modules = files
    try:
        engine.free(engine.module(path))
    except ScriptError:
        return _fault(engine, path)
    finally:
        engine.close()
    return None


def _fault(engine: Engine, path: str) -> frames_pb2.SyntaxFault:
    message, stack = engine.describe()
    position = _POSITION.search(stack)
    if position is None:
        return frames_pb2.SyntaxFault(file=path, message=message or "the module cannot be compiled")
    return frames_pb2.SyntaxFault(
        file=position.group(1), line=int(position.group(2)), column=int(position.group(3)), message=message
    )
