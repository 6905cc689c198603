"""The seccomp allowlist of a cell, as a BPF program that the zygote builds once and every cell loads.

Everything that is not listed kills the process. Three calls answer a distinctive error when they are made with a magic
first argument, so that a cell can prove at start that it is this very filter that judges its calls: without it the
kernel would answer something else. With any other argument they kill.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from typing import Any, Final

PROBE_ARGUMENT: Final = 0x5C5_C0DE
PROBE_ERRNO: Final = errno.ENOTUNIQ
PROBE_CALLS: Final = ("openat", "socket", "clone")

ALLOWED: Final = (
    # The one socket, by its descriptor. No call that passes descriptors, none that makes one.
    "recvfrom",
    "sendto",
    "read",
    "write",
    "close",
    "poll",
    "ppoll",
    # Memory: more of it is asked for by rules of its own below.
    "brk",
    "munmap",
    # Time and randomness.
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "time",
    "getrandom",
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

REFUSED: Final = ("tgkill", "rt_sigaction", "fstat", "newfstatat", "writev")
"""Answered with EPERM: the C library makes these on its way to abort, and the death should show as what it is."""

_LOW: Final = 0xFFFF_FFFF
_PROT_EXEC: Final = 4
_MAP_KIND: Final = 0x0F | 0x20 | 0x100 | 0x2000 | 0x4_0000
"""Bits of mmap's flags: shared, private or another kind; anonymous; growing down; locked; huge."""
_MAP_PLAIN: Final = 0x02 | 0x20
"""Private and anonymous, none of the others: what an allocator asks for."""
_MREMAP_MAYMOVE: Final = 1
_MADVISE: Final = (4, 8)
"""Give pages back, now or when they are needed. The others share pages with other processes or harm the machine."""
_FUTEX_OPTIONS: Final = 128 | 256
_FUTEX: Final = (0, 1, 9, 10)
"""Wait and wake, with and without a mask. The others lend priorities and move waiters: much code, no need."""
_RLIMIT_AS: Final = 9


def build_filter() -> bytes:
    """The program, in the kernel's format. Raises `OSError` or `ImportError` when libseccomp is not on this machine."""
    import pyseccomp as seccomp  # noqa: PLC0415 - a machine without libseccomp must be told, not crash at import

    rules = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    # Calls by the table of another architecture, which this machine's kernel may answer too.
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for name in ALLOWED:
        _add(rules, seccomp.ALLOW, name)
    for name in REFUSED:
        _add(rules, seccomp.ERRNO(errno.EPERM), name)
    for name, arguments in _with_arguments(seccomp.Arg, seccomp.EQ, seccomp.MASKED_EQ):
        _add(rules, seccomp.ALLOW, name, *arguments)
    for name in PROBE_CALLS:
        _add(rules, seccomp.ERRNO(PROBE_ERRNO), name, seccomp.Arg(0, seccomp.EQ, PROBE_ARGUMENT))
    with tempfile.TemporaryFile() as out:
        rules.export_bpf(out)
        out.seek(0)
        return out.read()


def _with_arguments(argument: Any, equal: Any, masked: Any) -> Iterator[tuple[str, list[Any]]]:
    """Calls that are allowed with some arguments only."""
    never_executable = argument(2, masked, _PROT_EXEC, 0)
    yield "mmap", [never_executable, argument(3, masked, _MAP_KIND, _MAP_PLAIN)]
    yield "mprotect", [never_executable]
    yield "mremap", [argument(3, equal, _MREMAP_MAYMOVE)]
    for advice in _MADVISE:
        yield "madvise", [argument(2, masked, _LOW, advice)]
    for operation in _FUTEX:
        yield "futex", [argument(1, masked, _LOW & ~_FUTEX_OPTIONS, operation)]
    # Its own limit, never another process's: the soft limit on memory follows the runs.
    yield "prlimit64", [argument(0, equal, 0), argument(1, masked, _LOW, _RLIMIT_AS)]


def _add(rules: object, action: int, name: str, *arguments: object) -> None:
    try:
        rules.add_rule(action, name, *arguments)  # type: ignore[attr-defined]
    except (OSError, ValueError, RuntimeError):
        # Not a call of this architecture: then it stays forbidden, which is the safe side. The mandatory ones are
        # proven by running.
        if name in PROBE_CALLS:
            raise
