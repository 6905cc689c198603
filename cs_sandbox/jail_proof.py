"""The proof that the jail kills: probes in the zygote's own children, each of which must die of what it tries.

A cell cannot try what would kill it, so the zygote lets a child in the very same jail try each forbidden act once,
before it forks the first cell. A cell then proves by the filter's marked answers that it is under the same filter.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from cs_sandbox import jail

_SURVIVED: Final = 77


def _connect() -> None:
    socket.socket(socket.AF_INET)


ATTEMPTS: Final[Mapping[str, Callable[[], object]]] = {
    "open": lambda: os.open("/", os.O_RDONLY),
    "connect": _connect,
    "fork": os.fork,
    "exec": lambda: os.execv(sys.executable, [sys.executable]),  # noqa: S606
    "kill": lambda: os.kill(os.getppid(), 0),
}


def survivors(plan: jail.JailPlan) -> list[str]:
    """Names of the attempts that did not kill the process that made them. Empty: the jail holds."""
    return [name for name, attempt in ATTEMPTS.items() if not _dies(plan, attempt)]


def _dies(plan: jail.JailPlan, attempt: Callable[[], object]) -> bool:
    child = os.fork()
    if child == 0:
        _probe(plan, attempt)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSYS


def _probe(plan: jail.JailPlan, attempt: Callable[[], object]) -> NoReturn:
    try:
        jail.enter(plan, os.open("/dev/null", os.O_RDWR))
        attempt()
    finally:
        os._exit(_SURVIVED)
