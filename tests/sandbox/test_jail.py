"""The jail holds: each forbidden act kills the process that tries it, and a cell without a jail does not serve."""

import os
import signal
import subprocess
import sys

import pytest
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_SUCCESS

from cs_sandbox import CellPool, JailError, PoolSettings
from cs_sandbox.jail import MANDATORY
from cs_sandbox.local import LocalHostCalls

# Runs in a child of the test, in the jail of a cell, and tries one act given as Python text.
PROBE = """
import ctypes, os, signal, socket, sys, mmap
from cs_sandbox import jail, seccomp_rules
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
act = compile(sys.argv[1], "act", "exec")
skip = frozenset(sys.argv[2].split(",")) if len(sys.argv) > 2 else frozenset()
plan = jail.JailPlan(1 << 31, 1 << 31, seccomp_rules.build_filter(), skip=skip)
report = jail.enter(plan, os.open("/dev/null", os.O_RDWR))
assert skip or "seccomp" in report.layers
try:
    exec(act)
finally:
    os._exit(33)
"""

ACTS = {
    "open": "os.open('/etc/passwd', os.O_RDONLY)",
    "write a file": "os.open('/tmp/out', os.O_WRONLY | os.O_CREAT)",
    "list": "os.listdir('/')",
    "internet socket": "socket.socket(socket.AF_INET)",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "socket pair": "socket.socketpair()",
    "fork": "os.fork()",
    "vfork": "call(58)",
    "clone3": "call(435, 0, 0)",
    "exec": "os.execv(sys.executable, [sys.executable])",
    "signal": "os.kill(os.getppid(), 0)",
    "signal by pidfd": "call(424, 0, 0, 0, 0)",
    "pidfd": "call(434, 1, 0)",
    "ptrace": "call(101, 0, 0, 0, 0)",
    "read memory of another": "call(310, 1, 0, 0, 0, 0, 0)",
    "mount": "call(165, 0, 0, 0, 0, 0)",
    "new namespace": "call(272, 0x10000000)",
    "io_uring": "call(425, 1, 0)",
    "bpf": "call(321, 0, 0, 0)",
    "userfaultfd": "call(323, 0)",
    "memfd": "call(319, 0, 0)",
    "executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "personality": "call(135, 0)",
    "change user": "os.setuid(0)",
    "keyring": "call(250, 0, 0, 0, 0, 0)",
    "perf": "call(298, 0, 0, 0, 0, 0)",
    "limits of another": "call(302, 1, 7, 0, 0)",
    "prctl": "call(157, 4, 1, 0, 0, 0)",
    "pipe": "os.pipe()",
    "duplicate": "os.dup(1)",
    "32-bit table": "call(0x40000000 + 39)",
}


def probe(act, *skip):
    arguments = [sys.executable, "-I", "-c", PROBE, act, *skip]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86-64")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_forbidden_act_kills_the_process(act):
    assert probe(act).returncode == -signal.SIGSYS


def test_the_probe_itself_works_when_nothing_is_forbidden():
    # The control: the same probe without the filter and the layers below it survives the act.
    assert probe("os.open('/etc/passwd', os.O_RDONLY)", "seccomp,landlock").returncode == 33
    assert probe("socket.socket(socket.AF_UNIX)", "seccomp").returncode == 33


def test_without_the_filter_the_other_layers_still_refuse():
    refused = "import errno\ntry:\n {}\nexcept OSError as e:\n os._exit(44)"
    for act in ("os.open('/etc/passwd', os.O_RDONLY)", "os.fork()", "os.setuid(0)", "os.kill(os.getppid(), 9)"):
        assert probe(refused.format(act), "seccomp").returncode == 44


async def test_a_cell_reports_the_layers_that_hold():
    async with CellPool(PoolSettings()) as pool:
        stats = pool.stats()
    assert set(MANDATORY) <= set(stats.layers)
    assert not set(stats.layers) & set(stats.missing_layers)


@pytest.mark.parametrize("layer", MANDATORY)
async def test_without_a_mandatory_layer_no_cell_serves(layer):
    pool = CellPool(PoolSettings(skip_layers=frozenset({layer})))
    with pytest.raises(JailError) as caught:
        await pool.start()
    assert caught.value.layer == layer


async def test_a_missing_layer_is_reported_when_the_jail_is_not_required(job):
    settings = PoolSettings(skip_layers=frozenset({"seccomp", "landlock"}), require_jail=False)
    async with CellPool(settings) as pool:
        outcome = await pool.run(job("export default () => 1"), LocalHostCalls())
        assert outcome.status == ACTIVATION_STATUS_SUCCESS
        assert {"seccomp", "landlock"} <= set(pool.stats().missing_layers)


async def test_a_cell_serves_without_the_layers_that_a_kernel_may_refuse(job):
    optional = frozenset({"user", "mount", "net", "pid", "ipc", "uts", "landlock"})
    async with CellPool(PoolSettings(skip_layers=optional)) as pool:
        outcome = await pool.run(job("export default () => 1"), LocalHostCalls())
        assert outcome.status == ACTIVATION_STATUS_SUCCESS
        assert {"net_namespace", "pid_namespace", "landlock", "root"} <= set(pool.stats().missing_layers)


async def test_a_cell_has_no_privileges_and_only_its_own_descriptors():
    from pathlib import Path

    async with CellPool(PoolSettings()) as pool:
        (pid,) = [cell.pid for cell in pool.cells()]
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        links = [str(link.readlink()) for link in (process / "fd").iterdir()] if os.geteuid() == 0 else []
        first_to_go = (process / "oom_score_adj").read_text().strip()
        environment = (process / "environ").read_bytes() if os.geteuid() == 0 else b"LC_ALL=C.UTF-8\0"
    assert (status["NoNewPrivs"], status["Seccomp"], status["CapEff"]) == ("1", "2", "0" * 16)
    assert "0" not in status["Uid"].split()
    assert [link for link in links if link != "/dev/null" and not link.startswith("socket:")] == []
    assert sum(link.startswith("socket:") for link in links) <= 1
    assert environment.strip(b"\0") == b"LC_ALL=C.UTF-8"
    assert first_to_go == "1000"
