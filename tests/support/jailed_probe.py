"""Run as a program: lets children try what the native probe knows, in the jail of a cell or outside of it.

`python jailed_probe.py LIBRARY FOLDER MODE` prints what came of each act as JSON. MODE is `free` (no jail), `jail`,
`bare` (the jail without its filter), or `numbers` (every system call by its number, in the jail). The process stands in
for the zygote: it makes the plan of the jail as the zygote does, and each child enters it as a cell does.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from cs_sandbox import activation, jail, zygote

NUMBERS = 480
NO_JAIL = 250
_CLONE_NEWNS = 0x2_0000
_MS_PRIVATE_REC = (1 << 18) | (1 << 14)


class Victim(ctypes.Structure):
    _fields_ = (
        ("parent", ctypes.c_int),
        ("connection", ctypes.c_int),
        ("space", ctypes.c_int),
        ("pidfd", ctypes.c_int),
        ("port", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("folder", ctypes.c_char_p),
        ("environ", ctypes.c_char_p),
        ("secret", ctypes.c_void_p),
    )


def outcome(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return signal.Signals(-code).name
    return "done" if code == 0 else "no jail" if code == NO_JAIL else errno.errorcode.get(code, f"exit {code}")


def attempt(plan: jail.JailPlan | None, act: Callable[[int], None]) -> str:
    near, far = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            if plan is None:
                # Mounts of an act that is not jailed are to stay its own.
                libc = ctypes.CDLL(None)
                if libc.unshare(_CLONE_NEWNS) == 0:
                    libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_REC), None)
            else:
                report = jail.enter(plan, far.fileno())
                if [layer for layer in jail.MANDATORY if layer in report.missing and layer not in plan.skip]:
                    os._exit(NO_JAIL)
            act(far.fileno())
        finally:
            os._exit(NO_JAIL - 1)
    far.close()
    status = os.waitpid(child, 0)[1]
    near.close()
    return outcome(status)


def main(library: str, folder: str, mode: str) -> dict[str, object]:
    signal.alarm(120)
    probe = ctypes.CDLL(library)
    probe.name_act.restype = ctypes.c_char_p
    probe.call_number.argtypes = (ctypes.c_long,)
    names = [probe.name_act(number).decode() for number in range(probe.count_acts())]
    perform, call_number = probe.perform_act, probe.call_number
    inet = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    name = f"cs-native-probe-{os.getpid()}"
    unix.bind(f"\0{name}")
    unix.listen(16)
    secret = ctypes.create_string_buffer(16384)
    victim = Victim(
        parent=os.getpid(),
        space=os.open("/proc/self/ns/net", os.O_RDONLY),
        pidfd=os.pidfd_open(os.getpid()),
        port=inet.getsockname()[1],
        name=name.encode(),
        folder=folder.encode(),
        environ=f"/proc/{os.getpid()}/environ".encode(),
        secret=(ctypes.addressof(secret) + 4095) & ~4095,
    )
    plan = None
    if mode != "free":
        activation.warm_up()
        plan = zygote.make_plan(1 << 31, frozenset({"seccomp"} if mode == "bare" else ()))
        assert not plan.distrust, plan.distrust

    def perform_numbered(number: int) -> Callable[[int], None]:
        def act(connection: int) -> None:
            victim.connection = connection
            perform(number, ctypes.byref(victim))

        return act

    absent = sorted(plan.absent) if plan is not None else []
    if mode == "numbers":
        calls = {str(number): attempt(plan, lambda _, n=number: call_number(n)) for number in range(NUMBERS)}
        return {"outcomes": calls, "absent": absent}
    outcomes = {}
    for number, act in enumerate(names):
        (target := Path(folder)).chmod(0o777)
        (target / "victim").write_text("x")
        for left in (target / "made", target / "folder"):
            left.unlink() if left.is_file() else left.rmdir() if left.is_dir() else None
        outcomes[act] = attempt(plan, perform_numbered(number))
    return {"outcomes": outcomes, "absent": absent}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)
    # As the zygote ends: the interpreter's own end would write to pages that are sealed.
    os._exit(0)
