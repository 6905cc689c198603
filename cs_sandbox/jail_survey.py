"""What this machine grants the jail of a cell, layer by layer.

`survey_jail` starts a process that does what the zygote does, forks a child that enters the jail as a cell does, and
tells what held. Nothing of it touches the process that asks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cs_sandbox.jail import MANDATORY
from cs_sandbox.job import MIB, SandboxError

_MEMORY_MAX: Final = 256 * MIB
_PATIENCE: Final = 60.0
_MESSAGE_MAX: Final = 65536


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the jail: what it does, and what a cell is without it."""

    name: str
    does: str
    without: str

    @property
    def mandatory(self) -> bool:
        """Whether a cell without it refuses to serve."""
        return self.name in MANDATORY


LAYERS: Final = (
    Layer("seccomp", "kills a cell that makes a system call off the list", "cells could reach the kernel"),
    Layer("rlimits", "bounds memory, processes, files and descriptors", "a cell could take the machine's memory"),
    Layer("identity", "runs cells as nobody, or as a user that is not root", "cells would act as root"),
    Layer("no_new_privs", "no program gives back what was dropped", "the filter could not be loaded by a user"),
    Layer("descriptors", "closes all but the one socket", "cells could use what the invoker has open"),
    Layer("capabilities", "gives up every capability", "root's powers in the namespaces stay until the filter"),
    Layer("sealed_code", "no page is both writable and executable", "a fault of the engine is easier to exploit"),
    Layer("landlock", "denies files, TCP, abstract sockets and signals", "the filter alone keeps cells from files"),
    Layer("root", "an empty, read-only root directory", "paths lead to the machine's files"),
    Layer("user_namespace", "its own users, so that the rest needs no root", "without root no other namespace either"),
    Layer("mount_namespace", "its own mounts, for the empty root", "no empty root directory"),
    Layer("net_namespace", "no network interface, no abstract socket", "the filter alone keeps cells from the network"),
    Layer("pid_namespace", "no process but cells to name", "the filter alone keeps cells from other processes"),
    Layer("ipc_namespace", "its own shared memory and queues", "the filter alone keeps cells from shared memory"),
    Layer("uts_namespace", "its own host name", "nothing: names cannot be asked for anyway"),
    Layer("death_signal", "ends cells when their zygote ends", "the pid namespace alone ends cells left behind"),
    Layer("dumpable", "no core dump, no tracing by its own user", "another process of the user could look into a cell"),
    Layer("oom_score", "the kernel ends cells first when memory runs out", "the kernel may end a service instead"),
)
"""Every layer, the most telling first."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What holds on this machine, and what does not with the reason."""

    held: frozenset[str]
    missing: dict[str, str]

    @property
    def safe(self) -> bool:
        """Whether every mandatory layer holds."""
        return self.held.issuperset(MANDATORY)


def survey_jail(skip: Collection[str] = ()) -> Survey:
    """Try the jail on this machine. `skip` leaves layers out. Raises `SandboxError` when it cannot be tried at all."""
    command = [sys.executable, "-I", "-m", "cs_sandbox.jail_survey", *skip]
    alone = {"LC_ALL": "C.UTF-8"}
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True, env=alone)
        found: dict[str, Any] = json.loads(ran.stdout)
    except subprocess.CalledProcessError as fault:
        told = fault.stderr.strip().splitlines()[-1:] or [f"it ended with {fault.returncode}"]
        raise SandboxError(f"the jail could not be tried: {told[0]}") from fault
    except (OSError, ValueError, subprocess.TimeoutExpired) as fault:
        raise SandboxError(f"the jail could not be tried: {fault}") from fault
    return Survey(frozenset(found["held"]), dict(found["missing"]))


def _try(skip: frozenset[str]) -> dict[str, Any]:
    """Enter the jail in a child, as the zygote's cells do; what it reports."""
    from cs_sandbox import activation, jail, zygote  # noqa: PLC0415 - a zygote's imports, for its stand-in only

    activation.warm_up()
    plan = zygote.make_plan(_MEMORY_MAX, skip)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            report = jail.enter(plan, theirs.fileno())
            theirs.sendall(json.dumps({"held": report.layers, "missing": report.missing}).encode())
        finally:
            os._exit(0)
    theirs.close()
    told = ours.recv(_MESSAGE_MAX)
    os.waitpid(child, 0)
    return dict(json.loads(told))


def main() -> NoReturn:
    """Print what the jail reports as JSON. The interpreter's own end would write to sealed pages, so it is left out."""
    code = 1
    try:
        sys.stdout.write(json.dumps(_try(frozenset(sys.argv[1:]))))
        code = 0
    except Exception as fault:  # noqa: BLE001 - whatever it is, who asked is to hear of it
        sys.stderr.write(f"{type(fault).__name__}: {fault}\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
