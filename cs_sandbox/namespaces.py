"""The namespaces of the zygote, which its cells inherit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import Final

from cs_sandbox.jail import EMPTY_ROOT, NOBODY

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE: Final = {"mount": 0x0002_0000, "uts": 0x0400_0000, "ipc": 0x0800_0000, "pid": 0x2000_0000, "net": 0x4000_0000}
_CLONE_USER: Final = 0x1000_0000
_CAP_SETGID: Final = 1 << 6
_CAP_SETUID: Final = 1 << 7
_MS_PRIVATE_REC: Final = (1 << 18) | (1 << 14)
_MS_SEALED: Final = 1 | 2 | 4 | 8
"""Read-only, no set-user-id, no devices, no programs."""


def enter_user_namespace() -> str:
    """Enter a user namespace that maps only this user (and nobody, for root); "" or what failed.

    The map must be written by a process outside when it has more than one line, so a child does it. Raises `OSError`
    when the namespace was entered and has no map: there is no way back, and identities would not be what they seem.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0 and not _may_map_users():
        return "root without CAP_SETUID and CAP_SETGID cannot map nobody: run as a user that is not root"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(_write_maps(os.getppid(), user, group))
    os.close(read_end)
    failed = _unshare(_CLONE_USER)
    os.close(write_end)
    status = os.waitpid(child, 0)[1]
    if not failed and status != 0:
        raise OSError("the map of the user namespace could not be written: leave the layer `user` out")
    return failed


def _may_map_users() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    return effective & _CAP_SETGID != 0 and effective & _CAP_SETUID != 0


def _write_maps(target: int, user: int, group: int) -> int:
    nobody = f"{NOBODY} {NOBODY} 1\n" if user == 0 else ""
    try:
        process = Path(f"/proc/{target}")
        if user != 0:
            (process / "setgroups").write_text("deny")
        (process / "uid_map").write_text(f"{user} {user} 1\n{nobody}")
        (process / "gid_map").write_text(f"{group} {group} 1\n{nobody}")
    except OSError:
        return 1
    return 0


def enter_namespaces(skip: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    """Enter what the kernel grants. Gives the names of what holds, and of what does not with the reason."""
    held: list[str] = []
    missing: dict[str, str] = {}
    for name, enter in [("user", enter_user_namespace), *((n, lambda n=n: _unshare(_CLONE[n])) for n in _CLONE)]:
        failed = "left out by configuration" if name in skip else enter()
        if failed:
            missing[f"{name}_namespace"] = failed
        else:
            held.append(f"{name}_namespace")
    if "pid_namespace" in held:
        _fork_first_process()
    return held, missing


def cover_root() -> bool:
    """Mount an empty, sealed file system at `EMPTY_ROOT`, seen by this mount namespace only."""
    if _libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_REC), None) != 0:
        return False
    root = EMPTY_ROOT.encode()
    return int(_libc.mount(b"none", root, b"tmpfs", ctypes.c_ulong(_MS_SEALED), b"size=4k,mode=555")) == 0


def _fork_first_process() -> None:
    """The namespace's first process must outlive all others. It sleeps, and dies with the zygote.

    When it dies the kernel kills every process of the namespace: no cell can be left behind.
    """
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            _libc.prctl(1, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
            os.closerange(0, 1 << 16)
            while True:
                signal.pause()
        os._exit(0)


def _unshare(flag: int) -> str:
    return "" if _libc.unshare(flag) == 0 else os.strerror(ctypes.get_errno())
