"""The zygote: a process that has imported what a cell needs and forks cells on demand.

Theory of operation: the control socket keeps message boundaries. The first message holds the settings; after it each
message of the supervisor asks for one cell. The answer carries the supervisor's end of a fresh socket pair and a pidfd
as passed descriptors. The zygote reaps its cells and tells how each ended. It has one thread, opens no connection, and
ends when the supervisor's end closes or the supervisor dies. Cells die with it.

Run as `python -I -m cs_sandbox.zygote FD`.
"""

from __future__ import annotations

import array
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from codesous.cell.v1 import frames_pb2

from cs_sandbox import activation, cell, code_pages, frames, jail, jail_proof, namespaces, seccomp_rules, shelf

_MESSAGE_MAX: Final = 65536
_HEADROOM: Final = 128 * 1024 * 1024 + shelf.BYTES_MAX


class Zygote:
    """Forks cells for the supervisor at the other end of `control`."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control = control
        self._require_jail = bool(settings["require_jail"])
        self._plan = make_plan(int(settings["memory_max_bytes"]), frozenset(settings["skip_layers"]))

    def serve(self) -> None:
        """Serve until the supervisor goes away."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self._tell({"ready": os.getpid(), "resident": _resident(resource.getrusage(resource.RUSAGE_SELF))})
        gc.collect()
        gc.freeze()
        while True:
            for ready, _ in poll.poll():
                if ready == wake_read:
                    os.read(wake_read, 4096)
                    self._reap()
                elif not self._fork():
                    return

    def _fork(self) -> bool:
        """Fork a cell for the request that waits; False when the supervisor is gone."""
        request = self._control.recv(_MESSAGE_MAX)
        if not request:
            return False
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _run_cell(self._plan, theirs, self._require_jail)
        theirs.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as fault:
            os.kill(pid, signal.SIGKILL)
            ours.close()
            self._tell({"failed": str(fault)})
            return True
        self._tell({"forked": pid}, ours.fileno(), pidfd)
        os.close(pidfd)
        ours.close()
        return True

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._tell({"ended": pid, "code": os.waitstatus_to_exitcode(status), "peak": _resident(usage)})

    def _tell(self, message: dict[str, Any], *descriptors: int) -> None:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._control.sendmsg([json.dumps(message).encode()], passed)


def _resident(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024


def make_plan(memory_max: int, skip: frozenset[str]) -> jail.JailPlan:
    """Prepare the jail of this process's children: seal, enter namespaces, and prove that the filter kills.

    There is no way back out of it. Called once, with one thread, after everything is imported and compiled.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    base = pages * os.sysconf("SC_PAGE_SIZE") + _HEADROOM
    program, distrust = b"", ""
    try:
        program = seccomp_rules.build_filter()
    except (OSError, ImportError, RuntimeError, AttributeError) as fault:
        distrust = f"the filter could not be built, is libseccomp on this machine? {fault}"
    held: list[str] = []
    absent: dict[str, str] = {}
    for layer, build in (("oom_score", _volunteer_for_the_oom_killer), ("sealed_code", code_pages.seal_code)):
        if failed := "left out by configuration" if layer in skip else build():
            absent[layer] = failed
        else:
            held.append(layer)
    spaces, refused = namespaces.enter_namespaces(skip)
    held, absent = [*held, *spaces], {**absent, **refused}
    covered = "mount_namespace" in held and namespaces.cover_root()
    plan = jail.JailPlan(base, memory_max, program, tuple(held), absent, covered, distrust, skip)
    if distrust or "seccomp" in skip:
        return plan
    survivors = jail_proof.survivors(plan)
    return replace(plan, distrust=f"the jail let a probe {', '.join(survivors)}") if survivors else plan


def _run_cell(plan: jail.JailPlan, connection: socket.socket, require_jail: bool) -> NoReturn:
    """The forked process. Never returns into the zygote's code, whatever happens."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        report = jail.enter(plan, connection.fileno())
        broken = [layer for layer in jail.MANDATORY if layer in report.missing]
        if broken and require_jail:
            failure = frames_pb2.JailFailure(layer=broken[0], message=report.missing[broken[0]])
            frames.send(connection, frames_pb2.FromCell(jail_failure=failure))
        else:
            ready = frames_pb2.Ready(layers=report.layers, missing_layers=sorted(report.missing))
            frames.send(connection, frames_pb2.FromCell(ready=ready))
            cell.run_cell(connection, plan.base_bytes)
    finally:
        os._exit(0)


def _volunteer_for_the_oom_killer() -> str:
    """When memory runs out the kernel is to end a cell, the one with most of it, and no service; "" or what failed."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError as fault:
        return str(fault)
    return ""


def main() -> None:
    """Serve on the control socket whose descriptor is the first argument."""
    jail.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = control.recv(_MESSAGE_MAX)
    if not settings:
        return
    os.environ.clear()
    try:
        activation.warm_up()
        zygote = Zygote(control, json.loads(settings))
    except Exception as fault:  # noqa: BLE001 - whatever it is, the supervisor is to hear of it
        control.send(json.dumps({"broken": f"{type(fault).__name__}: {fault}"}).encode())
        return
    zygote.serve()


if __name__ == "__main__":
    main()
    # Not by the interpreter's own end: it would free the callbacks, by writing to pages that are sealed.
    os._exit(0)
