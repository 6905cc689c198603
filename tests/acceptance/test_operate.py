"""What an operator does on a running mesh, by the command line."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.conftest import BIN, TENANT, Mesh

PROCESSES = ["cs-control", "cs-http-gateway", "cs-scheduler", "cs-cadence-poller", "cs-invoker-pool"]


@contextmanager
def drained(mesh: Mesh, process: str) -> Iterator[None]:
    """Drain for the length of the block."""
    assert mesh.cs("admin", "drain", process, "--timeout", "20").json["inflight"] == 0
    try:
        yield
    finally:
        mesh.cs("admin", "undrain", process)


def states(mesh: Mesh, expect: int = 0) -> dict[str, str]:
    told = mesh.cs("admin", "health", expect=expect).json
    assert told["ready"] is (expect == 0)
    return {process["process"]: process["state"] for process in told["processes"]}


def test_everybody_is_healthy_and_a_drained_process_says_so(mesh: Mesh) -> None:
    assert states(mesh) == dict.fromkeys(PROCESSES, "ready")
    with drained(mesh, "invoker"):
        assert states(mesh, expect=2)["cs-invoker-pool"] == "drained"
    assert states(mesh) == dict.fromkeys(PROCESSES, "ready")


def test_why_an_activation_waits_and_that_it_ends_when_the_cause_is_gone(mesh: Mesh, greet: str) -> None:
    with drained(mesh, "cs-invoker-pool"):
        submitted = mesh.cs("fn", "invoke", f"{greet}@live", "--event", "-", "--mode", "async", stdin="{}").json
        activation_id = submitted["activation_id"]
        told = mesh.cs("admin", "explain", activation_id).json
        assert (told["verdict"], told["tenant"]) == ("no_consumer", TENANT)
        queue = mesh.cs("admin", "queues").json
        assert [tenant["tenant"] for part in queue["partitions"] for tenant in part["tenants"]] == [TENANT]
        assert [consumer["draining"] for consumer in queue["consumers"]] == [True]
        text = mesh.cs("admin", "explain", activation_id, "--output", "table").out
        assert "no invoker consumes partition" in text
        assert "drained" in text
    mesh.rest("GET", f"/activations/{activation_id}:wait")
    # It has ended, so it is no longer among those that are looked at without a tenant: the login's is taken.
    assert mesh.cs("admin", "explain", activation_id).json["verdict"] == "done"
    assert mesh.cs("admin", "explain", str(uuid.uuid4())).json["verdict"] == "unknown"
    assert mesh.cs("admin", "explain", "nonsense", expect=1).error["reason"] == "CS_VALIDATION_FIELD"


def test_cells_leases_shards_caches_and_configuration(mesh: Mesh, greet: str) -> None:
    mesh.cs("fn", "invoke", f"{greet}@live", "--event", "-", stdin="{}")
    cells = mesh.cs("admin", "cells").json["cells"]
    assert any(cell["tenant"] == TENANT and cell["memory_bytes"] > 0 for cell in cells)
    assert {lease["process"] for lease in mesh.cs("admin", "leases").json["leases"]} >= {"cs-scheduler"}
    assert all(shard["owner"].startswith("scheduler-") for shard in mesh.cs("admin", "shards").json["shards"])
    caches = {(cache["process"], cache["name"]) for cache in mesh.cs("admin", "caches").json["caches"]}
    assert {("cs-invoker-pool", "bundles"), ("cs-http-gateway", "versions"), ("cs-control", "tokens")} <= caches
    assert mesh.cs("admin", "flush", "invoker", "bundles").json["dropped"] >= 1
    told = mesh.cs("admin", "info", "gateway").json
    assert told["service"] == "cs-http-gateway"
    assert told["config"]["gateway"]["port"] == mesh.ports["cs-http-gateway"]
    for command in ("health", "queues", "cells", "leases", "shards", "caches"):
        assert mesh.cs("admin", command, "--output", "table").out.strip()


def test_the_log_level_of_a_process(mesh: Mesh) -> None:
    shown = mesh.cs("admin", "log-level", "poller").json
    assert (shown["level"], shown["configured"]) == ("info", "info")
    assert "revert_time" in mesh.cs("admin", "log-level", "poller", "debug", "--for", "10m").json
    assert mesh.cs("admin", "log-level", "poller").json["level"] == "debug"
    assert mesh.cs("admin", "log-level", "poller", "configured").json["level"] == "info"
    for bad in (["loud"], ["debug", "--for", "soon"], ["debug", "--for", "99h"]):
        assert mesh.cs("admin", "log-level", "poller", *bad, expect=1).error["reason"] == "CS_VALIDATION_FIELD"


def test_processes_are_found_by_address_too(mesh: Mesh) -> None:
    address = f"127.0.0.1:{mesh.ports['cs-scheduler']}"
    (told,) = mesh.cs("admin", "health", "--address", address, CODE_SOUS_DATA_DIR="/nowhere").json["processes"]
    assert (told["process"], told["state"]) == (address, "ready")
    refused = mesh.cs("admin", "cells", "--address", address, expect=1).error
    assert refused["reason"] == "CS_UNIMPLEMENTED"
    nobody = mesh.cs("admin", "health", "--address", "127.0.0.1:1", expect=2).json
    assert [process["state"] for process in nobody["processes"]] == ["missing"]
    told = mesh.cs("admin", "info", "scheduler", CODE_SOUS_ADMIN=f"127.0.0.1:{mesh.ports['cs-control']},{address}").json
    assert told["service"] == "cs-scheduler"
    assert mesh.cs("admin", "info", "invoker", "--address", address, expect=1).error["reason"] == "CS_VALIDATION_FIELD"
    assert mesh.cs("admin", "drain", "nobody", expect=1).error["reason"] == "CS_VALIDATION_FIELD"
    assert mesh.cs("admin", "health", CODE_SOUS_DATA_DIR="/nowhere", expect=2).error["reason"] == "CS_CLI_NO_STACK"


def test_top_prints_a_plain_page_where_there_is_no_terminal(mesh: Mesh, greet: str) -> None:
    text = mesh.cs("top", "--once", "--interval", "0.5").out
    assert "5/5 ready" in text
    assert "\x1b" not in text
    for name in PROCESSES:
        assert any(line.startswith(name) for line in text.splitlines())
    data = json.loads(mesh.cs("top", "--once", "--interval", "0.5", "--json").out)
    assert {process["process"] for process in data["processes"]} == set(PROCESSES)


@pytest.mark.parametrize("end", ["q", "Ctrl-C", "SIGTERM"])
def test_top_leaves_the_terminal_as_it_was(mesh: Mesh, end: str) -> None:
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    before = termios.tcgetattr(terminal)
    environment = {**mesh.environment, "TERM": "xterm-256color"}
    command = [str(BIN / "cs"), "top", "--interval", "0.3"]
    top = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    try:
        shown = _read_until(master, b"cs-invoker-pool")
        assert b"\x1b[?1049h" in shown  # a screen of its own
        if end == "q":
            os.write(master, b"q")
        else:
            top.send_signal(signal.SIGINT if end == "Ctrl-C" else signal.SIGTERM)
        shown = _read_until(master, b"\x1b[?1049l")  # back to the one before
        assert b"\x1b[?25h" in shown + _read_rest(master)  # the cursor is shown
        assert top.wait(20) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        top.kill()
        top.wait()
        os.close(master)
        os.close(terminal)


def _read_until(master: int, wanted: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + 30
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([master], [], [], 0.5)[0]:
            shown += os.read(master, 65_536)
    return shown


def _read_rest(master: int) -> bytes:
    shown = b""
    while select.select([master], [], [], 0.5)[0]:
        shown += os.read(master, 65_536)
    return shown
