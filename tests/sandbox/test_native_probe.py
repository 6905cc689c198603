"""Machine code in a cell: what it may try, tried in the very same jail, each act with a control outside of it.

Assume that the engine can be made to run what an attacker likes: this is what is left to try. The probe is compiled
here, loaded before the jail is entered, and performs one act a process.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cs_sandbox import seccomp_rules

SOURCE = Path(__file__).with_name("native_probe.c")
RUNNER = Path(__file__).parents[1] / "support" / "jailed_probe.py"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
ACTS = re.findall(r"^(?:ACT|TRY)\((\w+),", SOURCE.read_text(), re.MULTILINE)
MAY = [act for act in ACTS if act.startswith("may_")]
FORBIDDEN = [act for act in ACTS if act not in MAY]

ANSWERED = {"signal_tgkill": "EPERM", "signal_handler": "EPERM", "limits_own_memory": "EPERM"}
"""What is not killed, because the C library does it on its way to abort, or because a run's limit is set by it."""

BELOW = {
    "descriptors": ("signal_pidfd", "pidfd_take", "namespace_enter", "memory_advise"),
    "root": (
        *("file_read", "file_read_openat2", "file_make", "file_remove", "file_rights", "file_look", "file_link"),
        *("folder_make", "folder_open", "folder_change", "root_change", "exec", "exec_at", "mount"),
        *("proc_own_memory", "proc_parent", "proc_kernel", "namespace_user", "namespace_net", "namespace_mount"),
    ),
    "net_namespace": ("connect_inet", "connect_abstract"),
    "pid_namespace": (
        *("signal_kill", "signal_everyone", "signal_tgkill", "signal_tkill", "signal_queue", "pidfd_open"),
        *("memory_read", "memory_write", "ptrace_parent", "compare_parent"),
        *("priority_parent", "affinity_parent", "limits_parent", "limits_parent_memory"),
    ),
    "rlimits": ("fork_glibc", "fork_raw", "fork_clone3", "thread", "memory_lock", "memory_locked", "limits_own_memory"),
    "capabilities": ("mount_open", "mount_tree", "bpf", "user_change", "group_change", "system_log", "socket_raw"),
}
"""What a layer below the filter refuses by itself, were the filter not there."""

PASSED_BY_THE_KERNEL = {"335": ("SIGILL",), "336": ("ENXIO",)} if os.uname().machine == "x86_64" else {}
"""The returns of its own probes, which newer kernels judge before any filter: good for nothing anywhere else."""

CERTAIN = ("file_read", "file_make", "proc_own_memory", "socket_unix", "connect_inet", "connect_abstract", "fork_glibc")
CERTAIN += ("exec", "signal_kill", "code_make", "code_all_rights", "descriptor_pass", "pipe", "thread", "ptrace_own")
"""Acts that every Linux machine lets a process do: they leave the control no way out."""

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine"),
    pytest.mark.xdist_group("native_probe"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("probe") / "native_probe.so"
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(built), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return built


@pytest.fixture(scope="module")
def attempts(library, tmp_path_factory):
    """What came of every act in a mode, tried once for all tests."""
    known = {}

    def found(mode):
        if mode not in known:
            folder = tmp_path_factory.mktemp(f"cs-{mode}")
            command = [sys.executable, str(RUNNER), str(library), str(folder), mode]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
            assert ran.returncode == 0, ran.stderr
            known[mode] = json.loads(ran.stdout)
        return known[mode]

    return found


@pytest.mark.parametrize("act", FORBIDDEN)
def test_machine_code_in_the_jail_is_killed_or_refused(act, attempts):
    assert attempts("jail")["outcomes"][act] == ANSWERED.get(act, "SIGSYS")


@pytest.mark.parametrize("act", MAY)
def test_what_a_cell_needs_is_not_killed(act, attempts):
    assert attempts("jail")["outcomes"][act] == "done"


@pytest.mark.parametrize("act", ACTS)
def test_the_same_act_succeeds_outside_of_the_jail(act, attempts):
    outcome = attempts("free")["outcomes"][act]
    if outcome != "done" and act not in CERTAIN:
        pytest.skip(f"this machine does not let a free process do it either: {outcome}")
    assert outcome == "done"


@pytest.mark.parametrize(("layer", "act"), [(layer, act) for layer, acts in BELOW.items() for act in acts])
def test_a_layer_below_the_filter_refuses_by_itself(layer, act, attempts):
    bare = attempts("bare")
    if layer in bare["absent"] or (layer == "root" and "mount_namespace" in bare["absent"]):
        pytest.skip(f"this machine does not grant {layer}")
    assert bare["outcomes"][act] != "done"
    assert not bare["outcomes"][act].startswith("SIG")


def test_every_call_that_is_not_on_the_list_kills(attempts):
    pyseccomp = pytest.importorskip("pyseccomp")
    # With arguments that no rule allows: of the calls that are allowed with some arguments, none may come through.
    known = {name: _number(pyseccomp, name) for name in (*seccomp_rules.ALLOWED, *seccomp_rules.REFUSED)}
    outcomes = attempts("numbers")["outcomes"]
    for number, answers in PASSED_BY_THE_KERNEL.items():
        assert outcomes.pop(number) in (*answers, "SIGSYS")
    answered = {number for number, outcome in outcomes.items() if outcome != "SIGSYS"}
    assert answered == {str(number) for number in known.values() if number is not None and number >= 0}


def _number(pyseccomp, name):
    try:
        return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except (ValueError, OSError):
        return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a cell that cannot be traced")
@pytest.mark.parametrize("sealed", [True, False])
async def test_no_page_of_a_cell_is_both_writable_and_executable(sealed):
    from cs_sandbox import CellPool, PoolSettings

    settings = PoolSettings(skip_layers=frozenset(() if sealed else {"sealed_code"}))
    async with CellPool(settings) as pool:
        (pid,) = [cell.pid for cell in pool.cells()][:1]
        rights = [line.split()[1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        missing = pool.stats().missing_layers
    assert any("x" in right for right in rights)
    # The control: a cell of a zygote that seals nothing has such a page.
    assert any("w" in right and "x" in right for right in rights) is not sealed
    assert ("sealed_code" in missing) is not sealed
