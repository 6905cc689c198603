"""What this machine grants: the jail of the cells, calls of the kernel, and the parts of the embedded stack."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cs_cli.failure import CommandError
from cs_cli.output import size
from cs_cli.stack.plan import proxy_executable, store_executable
from cs_cli.stack.ports import choose_ports
from cs_sandbox import Bundle, CellPool, DeniedHostCalls, Job, PoolSettings, SandboxError
from cs_sandbox.jail_survey import LAYERS, survey_jail

OK: Final = "ok"
WARN: Final = "warn"
MISSING: Final = "missing"

PYTHON_MIN: Final = (3, 11)
DISK_MIN: Final = 1 << 30
MEMORY_MIN: Final = 1 << 30
DESCRIPTORS_MIN: Final = 1024
MACHINES: Final = ("x86_64", "aarch64")
_PATIENCE: Final = 10.0
_SYS_LANDLOCK_CREATE: Final = 444
_SYS_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_KILL_PROCESS: Final = 0x8000_0000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    area: str
    """`jail`, `kernel` or `stack`."""
    name: str
    state: str
    """`ok`; `warn`: works, with a loss; `missing`."""
    mandatory: bool
    """Whether the platform refuses to work without it."""
    found: str
    """What is there, or why it is not."""
    without: str = ""
    """What it costs that it is not there."""


def look(port: int, data_dir: Path) -> Iterator[Check]:
    """Everything, one after the other."""
    yield from _jail()
    yield from _kernel()
    yield from _stack(port, data_dir)


def _check(area: str, name: str, fault: str | None, found: str, without: str, *, mandatory: bool = True) -> Check:
    """`ok` without a fault; with one, what it costs."""
    if fault is None:
        return Check(area, name, OK, mandatory, found)
    return Check(area, name, MISSING if mandatory else WARN, mandatory, fault, without)


def _jail() -> Iterator[Check]:
    try:
        survey = survey_jail()
    except SandboxError as fault:
        yield Check("jail", "jail", MISSING, True, str(fault), "functions cannot run")
        return
    for layer in LAYERS:
        if layer.name in survey.held:
            yield Check("jail", layer.name, OK, layer.mandatory, layer.does)
        else:
            reason = survey.missing.get(layer.name, "the jail does not report it")
            yield Check("jail", layer.name, MISSING, layer.mandatory, reason, layer.without)
    yield _cell() if survey.safe else Check("jail", "cell", MISSING, True, "not tried", "functions cannot run")


def _cell() -> Check:
    async def run() -> float:
        bundle = Bundle.of_files({"index.js": b"export default () => 1"})
        async with CellPool(PoolSettings(cells_max=1, spare_cells=0)) as pool:
            outcome = await pool.run(Job("t_doctor", bundle), DeniedHostCalls())
            if outcome.response is None:
                raise SandboxError(str(outcome.error))
            return (outcome.end - outcome.start).total_seconds() * 1000

    try:
        spent = asyncio.run(run())
    except (SandboxError, OSError) as fault:
        return Check("jail", "cell", MISSING, True, str(fault), "functions cannot run")
    return Check("jail", "cell", OK, True, f"proved its jail and ran a function in {spent:.1f} ms")


# The kernel.


def _kernel() -> Iterator[Check]:
    machine = os.uname().machine
    known = None if machine in MACHINES else f"{machine}; the jail knows {' and '.join(MACHINES)}"
    yield _check("kernel", "linux", known, f"{os.uname().release} on {machine}", "functions cannot run")
    yield _check("kernel", "pidfd", _lack_of(_use_pidfd), "processes can be held and signalled", "cells cannot be held")
    kills = _lack_of(_use_kill_process)
    yield _check("kernel", "seccomp_kill_process", kills, "a forbidden call kills", "the filter cannot be loaded")
    version = _landlock()
    found = f"ABI {version}: {_landlock_rights(version)}"
    fault = None if version > 0 else "the kernel has none, or it is not switched on"
    yield _check("kernel", "landlock_abi", fault, found, "the layer landlock is missing", mandatory=False)
    yield _namespaces_of_users()
    yield _open_files()


def _lack_of(use: Callable[[], None]) -> str | None:
    try:
        use()
    except (OSError, AttributeError) as fault:
        return str(fault)
    return None


def _use_pidfd() -> None:
    held = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(held, 0)
    finally:
        os.close(held)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))


def _use_kill_process() -> None:
    action = ctypes.c_uint32(_KILL_PROCESS)
    number = _SYS_SECCOMP.get(os.uname().machine, -1)
    if _call(number, ctypes.c_uint(_SECCOMP_GET_ACTION_AVAIL), ctypes.c_uint(0), ctypes.byref(action)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _landlock() -> int:
    return _call(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


def _landlock_rights(version: int) -> str:
    rights = ["files", *(["TCP"] if version >= 4 else []), *(["abstract sockets, signals"] if version >= 6 else [])]
    return ", ".join(rights)


def _namespaces_of_users() -> Check:
    limits = [
        Path("/proc/sys/user/max_user_namespaces"),
        Path("/proc/sys/kernel/unprivileged_userns_clone"),
        Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    ]
    values = {path.name: path.read_text().strip() for path in limits if path.exists()}
    text = ", ".join(f"{name}={value}" for name, value in values.items()) or "the kernel has no limit of its own"
    refused = values.get("max_user_namespaces") == "0" or values.get("unprivileged_userns_clone") == "0"
    refused = refused or values.get("apparmor_restrict_unprivileged_userns") == "1"
    fault = text if refused and os.geteuid() != 0 else None
    return _check("kernel", "user_namespaces", fault, text, "the layers of namespaces are missing", mandatory=False)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fault = None if soft >= DESCRIPTORS_MIN else f"{soft} of at most {hard}"
    return _check("kernel", "open_files", fault, str(soft), "few connections at a time", mandatory=False)


# The embedded stack.


def _stack(port: int, data_dir: Path) -> Iterator[Check]:
    found = sys.version_info[:2]
    old = None if found >= PYTHON_MIN else f"{platform.python_version()} is older than {PYTHON_MIN[0]}.{PYTHON_MIN[1]}"
    yield _check("stack", "python", old, platform.python_version(), "the platform does not run")
    yield _program("redis-server", store_executable, "the embedded store does not run; `cs up` needs it")
    yield _program("envoy", proxy_executable, "the public port does not open; `cs up` needs it")
    yield _ports(port)
    yield _disk(data_dir)
    yield _memory()


def _program(name: str, executable: Callable[[], str], without: str) -> Check:
    try:
        path = executable()
        ran = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except (CommandError, OSError, subprocess.SubprocessError) as fault:
        return Check("stack", name, MISSING, True, getattr(fault, "message", str(fault)), without)
    told = ran.stdout.strip().splitlines()
    return Check("stack", name, OK, True, told[-1].split("version:")[-1].strip() if told else path)


def _ports(port: int) -> Check:
    try:
        chosen = list(choose_ports(port))
    except CommandError as fault:
        return Check("stack", "ports", WARN, False, fault.message, "another stack, or another program, has them")
    return Check(
        "stack", "ports", OK, False, f"{chosen[0]} to {chosen[-1]} are free" if port else "free ones are taken"
    )


def _disk(data_dir: Path) -> Check:
    place = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    fault = None
    if not os.access(place, os.W_OK):
        fault = f"{place} cannot be written"
    elif free < DISK_MIN:
        fault = f"{size(free)} free at {place}"
    return _check(
        "stack", "data_dir", fault, f"{place}, {size(free)} free", "the embedded store has no room", mandatory=False
    )


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{size(total)}, {os.cpu_count()} processors"
    fault = None if total >= MEMORY_MIN else found
    return _check("stack", "memory", fault, found, "a mesh needs about half a gigabyte for itself", mandatory=False)
