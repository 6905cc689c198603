"""What a machine grants is told layer by layer, as the cells themselves would; `cs doctor` shows it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cs_cli.__main__ import run
from cs_cli.stack import machine
from cs_sandbox import CellPool, PoolSettings, seccomp_rules
from cs_sandbox.jail import MANDATORY
from cs_sandbox.jail_survey import LAYERS, survey_jail

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "sandbox.md").read_text()
NAMES = {layer.name for layer in LAYERS}


async def test_what_is_told_is_what_a_cell_reports():
    survey = survey_jail()
    assert survey.held | set(survey.missing) == NAMES
    assert not survey.held & set(survey.missing)
    async with CellPool(PoolSettings()) as pool:
        stats = pool.stats()
    assert survey.held == set(stats.layers)
    assert set(survey.missing) == set(stats.missing_layers)
    assert survey.safe


@pytest.mark.parametrize("layer", ["seccomp", "landlock", "user", "sealed_code"])
def test_a_layer_that_is_left_out_is_missing_with_the_reason(layer):
    survey = survey_jail([layer])
    name = "user_namespace" if layer == "user" else layer
    assert name not in survey.held
    assert "left out" in survey.missing[name]
    assert survey.safe is (name not in MANDATORY)


def test_the_page_has_every_layer_and_every_call():
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes)? *\|", PAGE, re.MULTILINE))
    assert {name: bool(needed) for name, needed in rows.items()} == {layer.name: layer.mandatory for layer in LAYERS}
    rules = PAGE.split("**The filter**")[1].split("**The proof.**")[0]
    named = set(re.findall(r"`(\w+)`", rules))
    with_arguments = {"mmap", "mprotect", "mremap", "madvise", "futex", "prlimit64"}
    assert named >= {*seccomp_rules.ALLOWED, *seccomp_rules.REFUSED, *with_arguments}
    assert named <= {*seccomp_rules.ALLOWED, *seccomp_rules.REFUSED, *with_arguments} | {
        *("sendmsg", "recvmsg", "uretprobe", "uprobe")
    }


def doctor(capsys, *options):
    code = run(["doctor", "--json", "--port", "0", *options])
    return code, json.loads(capsys.readouterr().out)


def test_the_doctor_finds_this_machine_usable(capsys, tmp_path):
    code, told = doctor(capsys, "--data-dir", str(tmp_path / "data"))
    assert (code, told["ready"]) == (0, True)
    checks = {check["name"]: check for check in told["checks"]}
    assert set(checks) >= NAMES
    assert {"cell", "pidfd", "landlock_abi", "python", "redis-server", "envoy", "ports", "data_dir"} <= set(checks)
    assert all(check["state"] == "ok" for check in checks.values() if check["mandatory"])
    assert "ran a function" in checks["cell"]["found"]


@pytest.mark.parametrize(("left_out", "code"), [("seccomp", 2), ("landlock", 0)])
def test_only_a_mandatory_layer_that_is_missing_makes_it_fail(left_out, code, capsys, monkeypatch):
    monkeypatch.setattr(machine, "survey_jail", lambda: survey_jail([left_out]))
    ended, told = doctor(capsys)
    assert (ended, told["ready"]) == (code, code == 0)
    (check,) = [check for check in told["checks"] if check["name"] == left_out]
    assert check["state"] == "missing"
    assert check["without"]


def test_a_program_that_is_not_there_is_missing_and_a_port_in_use_is_told(capsys, monkeypatch):
    import socket

    monkeypatch.setattr(machine, "store_executable", lambda: "/nonexistent/redis-server")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["doctor", "--json", "--port", port]) == 2
    told = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in told["checks"]}
    assert checks["redis-server"]["state"] == "missing"
    assert checks["ports"]["state"] == "warn"
    assert port in checks["ports"]["found"]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, and setpriv to be less")
def test_root_without_capabilities_is_told_what_to_do_instead():
    # As in a container that dropped everything and still runs as root: it cannot become nobody, so nothing is served.
    command = [
        "setpriv",
        "--inh-caps=-all",
        "--bounding-set=-all",
        sys.executable,
        "-I",
        "-m",
        "cs_sandbox.jail_survey",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(ran.stdout)
    assert "identity" in told["missing"]
    assert "a user that is not root" in told["missing"]["user_namespace"]
    assert "seccomp" in told["held"]
