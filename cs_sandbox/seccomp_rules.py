"""The seccomp allowlist of a cell, as a BPF program that the zygote builds once and every cell loads.

Everything that is not listed kills the process. Three calls answer a distinctive error when they are made with a magic
first argument, so that a cell can prove at start that it is this very filter that judges its calls: without it the
kernel would answer something else. With any other argument they kill.
"""

from __future__ import annotations

import errno
import tempfile
from typing import Final

PROBE_ARGUMENT: Final = 0x5C5_C0DE
PROBE_ERRNO: Final = errno.ENOTUNIQ
PROBE_CALLS: Final = ("openat", "socket", "clone")

ALLOWED: Final = (
    # The one socket, by its descriptor.
    "recvfrom",
    "sendto",
    "read",
    "write",
    "close",
    "poll",
    "ppoll",
    # Memory. mmap and mprotect have rules of their own.
    "brk",
    "munmap",
    "mremap",
    "madvise",
    # Time, randomness, locks of one thread.
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "time",
    "getrandom",
    "futex",
    "sched_yield",
    # Signals that the C library handles for itself, and the end.
    "rt_sigreturn",
    "rt_sigprocmask",
    "sigaltstack",
    "restart_syscall",
    "getpid",
    "gettid",
    "exit",
    "exit_group",
)

REFUSED: Final = ("tgkill", "rt_sigaction", "fstat", "newfstatat")
"""Answered with EPERM: the C library makes these on its way to abort, and the death should show as what it is."""

_PROT_EXEC: Final = 4


def build_filter() -> bytes:
    """The program, in the kernel's format. Raises `OSError` or `ImportError` when libseccomp is not on this machine."""
    import pyseccomp as seccomp  # noqa: PLC0415 - a machine without libseccomp must be told, not crash at import

    rules = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    for name in ALLOWED:
        _add(rules, seccomp.ALLOW, name)
    for name in REFUSED:
        _add(rules, seccomp.ERRNO(errno.EPERM), name)
    for name in ("mmap", "mprotect"):
        _add(rules, seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, _PROT_EXEC, 0))
    # Its own limits, never another process's: the soft limit on memory follows the run.
    _add(rules, seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0))
    for name in PROBE_CALLS:
        _add(rules, seccomp.ERRNO(PROBE_ERRNO), name, seccomp.Arg(0, seccomp.EQ, PROBE_ARGUMENT))
    with tempfile.TemporaryFile() as out:
        rules.export_bpf(out)
        out.seek(0)
        return out.read()


def _add(rules: object, action: int, name: str, *arguments: object) -> None:
    try:
        rules.add_rule(action, name, *arguments)  # type: ignore[attr-defined]
    except (OSError, ValueError, RuntimeError):
        # Not a call of this architecture: then it stays forbidden, which is the safe side. The mandatory ones are
        # proven by running.
        if name in PROBE_CALLS:
            raise
