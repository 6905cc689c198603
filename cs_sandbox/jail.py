"""The jail of a cell, one function a layer.

Theory of operation: the zygote enters the namespaces once and its cells inherit them: a network without interfaces, a
tree of processes without the host's, and an empty read-only root directory to change into. The namespaces are shared
between cells; what keeps one cell from another is seccomp, which leaves no call that reaches another process. After the
fork, `enter` closes what was inherited, drops identity and capabilities, limits resources, forbids file access by
landlock, loads the seccomp filter, and proves that it holds. It ends before the first byte of user code.

`MANDATORY` layers must hold. The others depend on what the kernel grants and are reported when they are missing.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cs_sandbox import seccomp_rules

MANDATORY: Final = ("descriptors", "identity", "no_new_privs", "rlimits", "seccomp")
NOBODY: Final = 65534
EMPTY_ROOT: Final = "/proc"
"""The zygote covers this directory with an empty file system of its own; no cell needs what was there."""

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_GET_NO_NEW_PRIVS: Final = 39
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_DESCRIPTOR_MAX: Final = 0xFFFF_FFFF
_SYS_CLOSE_RANGE: Final = 436
_SYS_LANDLOCK_CREATE: Final = 444
_SYS_LANDLOCK_RESTRICT: Final = 446
_MACHINE: Final = os.uname().machine
_NUMBERS: Final = {
    "x86_64": {"openat": 257, "socket": 41, "clone": 56, "capset": 126},
    "aarch64": {"openat": 56, "socket": 198, "clone": 220, "capset": 91},
}


class LayerError(Exception):
    """A layer of the jail could not be built."""

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(message)
        self.layer = layer


@dataclass(frozen=True, slots=True)
class JailPlan:
    """What the zygote worked out for the cells that it forks.

    Attributes:
        base_bytes: address space that a cell needs beyond the heap of its scripts.
        memory_max_bytes: largest heap that a run may ask for; with `base_bytes`, the hard limit of the address space.
        program: seccomp filter.
        inherited: layers that the zygote holds and a cell inherits.
        absent: layers that the zygote could not build, with the reason.
        has_empty_root: whether `EMPTY_ROOT` is covered, so that a cell can change into it.
        distrust: why the filter is not to be trusted on this machine; empty: it is.
        skip: layers to leave out, for tests and for finding faults.
    """

    base_bytes: int
    memory_max_bytes: int
    program: bytes
    inherited: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    has_empty_root: bool = False
    distrust: str = ""
    skip: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class JailReport:
    """Which layers hold, and what is missing with the reason."""

    layers: tuple[str, ...]
    missing: dict[str, str]


def enter(plan: JailPlan, connection_fd: int) -> JailReport:
    """Jail this process for good. All descriptors but `connection_fd` are closed.

    Raises nothing: the report tells.
    """
    layers: list[str] = list(plan.inherited)
    missing = dict(plan.absent)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("descriptors", lambda: close_descriptors(connection_fd)),
        ("root", lambda: change_root(plan.has_empty_root)),
        ("identity", drop_identity),
        ("capabilities", drop_capabilities),
        ("no_new_privs", forbid_new_privileges),
        ("death_signal", die_with_parent),
        ("dumpable", forbid_dumps),
        ("landlock", forbid_files),
        ("rlimits", lambda: limit_resources(plan.base_bytes + plan.memory_max_bytes, connection_fd)),
        ("seccomp", lambda: filter_calls(plan)),
    ]
    for name, build in steps:
        try:
            _refuse_skipped(name, plan.skip)
            build()
        except (OSError, LayerError, ValueError) as fault:
            missing[name] = str(fault)
        else:
            layers.append(name)
    if "seccomp" in layers:
        try:
            prove()
        except LayerError as fault:
            layers.remove("seccomp")
            missing["seccomp"] = str(fault)
    return JailReport(tuple(layers), missing)


def _refuse_skipped(layer: str, skip: frozenset[str]) -> None:
    if layer in skip:
        raise LayerError(layer, "left out by configuration")


def close_descriptors(connection_fd: int) -> None:
    """Leave only /dev/null at 0 to 2 and the connection."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    _close_range(3, connection_fd - 1)
    _close_range(connection_fd + 1, _DESCRIPTOR_MAX)


def _close_range(first: int, last: int) -> None:
    if first > last:
        return
    if _libc.syscall(ctypes.c_long(_SYS_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0)) != 0:
        # A kernel before 5.9. What was opened above today's limit, under a higher one, is out of reach then.
        os.closerange(first, min(last, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) + 1)


def change_root(has_empty_root: bool) -> None:
    """Make an empty read-only directory the root."""
    if not has_empty_root:
        raise LayerError("root", "the zygote could not make a mount namespace")
    os.chroot(EMPTY_ROOT)
    os.chdir("/")


def drop_identity() -> None:
    """Become nobody when root. Whoever is not root keeps an identity that is not privileged."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if 0 in os.getresuid():
        raise LayerError("identity", "the process is still root")


def drop_capabilities() -> None:
    """Give up every capability, those in a user namespace included."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    _check("capabilities", _libc.syscall(ctypes.c_long(_number("capset")), header, none))


def forbid_new_privileges() -> None:
    """No exec gives back what was dropped."""
    _check("no_new_privs", _prctl(_PR_SET_NO_NEW_PRIVS, 1))
    if _prctl(_PR_GET_NO_NEW_PRIVS, 0) != 1:
        raise LayerError("no_new_privs", "the kernel did not keep the flag")


def die_with_parent() -> None:
    """Be killed when the parent dies. A change of identity clears this, so it comes after."""
    _check("death_signal", _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))


def forbid_dumps() -> None:
    """No core, no ptrace by others of the same user, /proc entries owned by root."""
    _check("dumpable", _prctl(_PR_SET_DUMPABLE, 0))


def limit_resources(address_space: int, connection_fd: int) -> None:
    """Set the hard limits. The soft limit of the address space is lowered for each run."""
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, connection_fd + 1),
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_DATA, address_space),
    ):
        hard = resource.getrlimit(limit)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (wanted, wanted))


def forbid_files() -> None:
    """Handle every access that this kernel's landlock knows, and allow none."""
    version = _libc.syscall(ctypes.c_long(_SYS_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        raise LayerError("landlock", "the kernel has none")
    file_rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    attributes = (ctypes.c_uint64 * 3)((1 << file_rights) - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _libc.syscall(ctypes.c_long(_SYS_LANDLOCK_CREATE), attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    _check("landlock", rules)
    try:
        _check(
            "landlock", _libc.syscall(ctypes.c_long(_SYS_LANDLOCK_RESTRICT), ctypes.c_int(rules), ctypes.c_uint32(0))
        )
    finally:
        os.close(rules)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls(plan: JailPlan) -> None:
    """Load the seccomp filter: from here on, a call that is not on the list kills the process."""
    if plan.distrust:
        raise LayerError("seccomp", plan.distrust)
    loaded = _Program(len(plan.program) // 8, plan.program)
    _check("seccomp", _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0))


def prove() -> None:
    """Try to open, connect and fork: each must fail, and in the way that only our filter answers."""
    for name in seccomp_rules.PROBE_CALLS:
        ctypes.set_errno(0)
        arguments = [ctypes.c_long(seccomp_rules.PROBE_ARGUMENT), *[ctypes.c_long(0)] * 5]
        answer = _libc.syscall(ctypes.c_long(_number(name)), *arguments)
        if answer != -1 or ctypes.get_errno() != seccomp_rules.PROBE_ERRNO:
            raise LayerError("seccomp", f"the filter did not refuse {name}")


def limit_memory(address_space: int) -> None:
    """Lower or raise the soft limit of the address space, up to the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = address_space if hard == resource.RLIM_INFINITY else min(address_space, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _number(name: str) -> int:
    try:
        return _NUMBERS[_MACHINE][name]
    except KeyError:
        raise LayerError("seccomp", f"no call numbers for {_MACHINE}") from None


def _prctl(option: int, value: int) -> int:
    zero = ctypes.c_ulong(0)
    return int(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def _check(layer: str, answer: int) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise LayerError(layer, os.strerror(number))
