"""Every documented series, found with a value on the metrics pages of a mesh that did some of everything."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cs_cli.stack.plan import SERVICES
from tests.acceptance.conftest import TENANT, Mesh
from tools.metrics_page import EVERY, all_series

FUNCTIONS = "/namespaces/default/functions"
# Zero unless something of ours or around us fails; each is driven by a test of its own.
FAULT_ONLY = {
    "cs_audit_ledger_failures_total": "the ledger takes nothing: tests/integration/test_relay.py",
    "cs_audit_relay_lag_seconds": "a mutation waits for the ledger: tests/integration/test_relay.py",
    "cs_scheduler_faults_total": "a look at a schedule fails: tests/integration/test_scheduler_ticks.py",
    "cs_scheduler_repairs_total": "a control plane dies in a change: tests/integration/test_schedules.py",
    "cs_invoker_bystanders_total": "a neighbour kills a cell: tests/integration/test_invoker_bystanders.py",
    "cs_invoker_egress_reports_total": "a fetch is only reported: tests/integration/test_egress_report.py",
    "cs_invoker_runs_waiting": "every cell is busy at the moment of a scrape: tests/unit/test_metrics.py",
}
# Tokens are of callers from outside; nobody calls these two but the operator.
WITHOUT_CALLERS = ("cs-scheduler", "cs-cadence-poller")
WORK = """
export default async function handle(event, ctx) {
  while (event?.spin);
  if (event?.fail) throw new Error("no");
  if (ctx.trigger?.kind === "cadence") await cs.cadence.heartbeat({ at: 1 });
  if (event?.sleep) await new Promise((done) => setTimeout(done, event.sleep));
  return { attempt: ctx.attempt };
}
"""


class Pages:
    """The metrics pages of the five processes, read again and again: what was ever more than zero was seen."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self.shown: dict[str, set[str]] = {name: set() for name in ports}
        self.seen: dict[str, set[str]] = {name: set() for name in ports}
        self.labels: dict[str, set[str]] = {}
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            self.read()

    def read(self) -> None:
        for process, port in self._ports.items():
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=5).text
            except httpx.HTTPError:
                continue  # It is being started again.
            for family in text_string_to_metric_families(text):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                self.shown[process].add(name)
                for sample in family.samples:
                    if sample.value > 0 and not sample.name.endswith("_created"):
                        self.seen[process].add(name)
                    self.labels.setdefault(name, set()).update(set(sample.labels) - {"le"})

    def missing(self) -> set[str]:
        """The documented series, with their process, that were not seen with a value."""
        return {
            f"{process} {series.name}"
            for owner, found in all_series().items()
            for process in (self._ports if owner == EVERY else [owner])
            for series in found
            if series.name not in self.seen[process] and series.name not in FAULT_ONLY
            if not (process in WITHOUT_CALLERS and series.name.startswith("cs_cache_"))
        }

    def undocumented(self) -> set[str]:
        documented = {series.name for found in all_series().values() for series in found}
        # When a counter was made is a series of its own in this format.
        shown = {
            name
            for names in self.shown.values()
            for name in names
            if name.startswith("cs_") and not name.endswith("_created")
        }
        return shown - documented


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in SERVICES]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for (name, _, _), probe in zip(SERVICES, probes, strict=True)}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Mesh]:
    """A mesh of its own, whose processes show their metrics and whose leases are short."""
    made = Mesh(tmp_path_factory.mktemp("metrics"))
    settings = {f"CS_{section.upper()}__METRICS_PORT": str(ports[name]) for name, _, section in SERVICES}
    settings["CS_INVOKER__ACTIVATION_LEASE"] = "2"
    settings["CS_CODEQ__LEASE"] = "2"
    # A cell that nobody uses is ended, and counted, while the invoker is drained.
    settings["CS_SANDBOX__IDLE_TTL"] = "1"
    made.url = made.cs("up", "--detach", "--with-cadence", "--port", "0", **settings).json["api_url"]
    try:
        made.cs("auth", "login", "--tenant", TENANT, "--token", made.admin, "--api-url", made.url)
        yield made
    finally:
        made.cs("down")


def start(mesh: Mesh, name: str, **event: Any) -> httpx.Response:
    body = {"ref": "live", "event": event, "mode": "INVOKE_MODE_ASYNC"}
    return mesh.rest("POST", f"{FUNCTIONS}/{name}:invoke", json=body)


def call(mesh: Mesh, name: str, **event: Any) -> int:
    return mesh.rest("POST", f"{FUNCTIONS}/{name}:invoke", json={"ref": "live", "event": event}).status_code


def kill_an_invoker(mesh: Mesh) -> None:
    """A run is taken over from an invoker that was killed."""
    # Asked before: under load the command takes longer than the run.
    (pid,) = [part["pid"] for part in mesh.cs("status").json["parts"] if part["name"] == "cs-invoker-pool"]
    activation = start(mesh, "work", sleep=2500).json()["activation"]["activation_id"]
    deadline = time.monotonic() + 20
    while not mesh.rest("GET", f"/activations/{activation}").json()["activation"]["status"].endswith("RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    ended = mesh.rest("GET", f"/activations/{activation}:wait").json()["activation"]
    assert ended["attempt"] == 2, ended


def run_some_of_everything(mesh: Mesh) -> None:
    mesh.deploy("limited", WORK, rateLimitRps=1)
    mesh.deploy("single", WORK, maxConcurrency=1)
    mesh.deploy("flaky", WORK, retry={"maxAttempts": 2, "initialBackoff": "1s"})
    mesh.deploy("later", WORK, retry={"maxAttempts": 2, "initialBackoff": "60s", "maxBackoff": "60s"})
    place = ("--domain", "demo", "--tasklist", "work")
    mesh.cs("cadence", "worker", "create", "work", *place, "--activity", "Work=work@live")
    for name, function in (("runs", "work"), ("refused", "limited")):
        mesh.cs("schedule", "create", name, "--every", "1", "--fn", f"{function}@live")
    assert start(mesh, "flaky", fail=True).status_code < 300
    # Longer than the time between two readings of the queue.
    assert start(mesh, "later", fail=True).status_code < 300
    for _ in range(4):
        start(mesh, "single", sleep=800)
    with ThreadPoolExecutor(4) as pool:
        codes = [code.result() for code in [pool.submit(call, mesh, "limited") for _ in range(4)]]
        assert {200, 429} <= set(codes), codes
        assert call(mesh, "work") == 200
        sent = '{"sleep": 900}'
        end = mesh.cs("cadence", "run", "Work", "--worker", "work", "--input", "-", stdin=sent).json
        assert end["how"] == "completed", end
    mesh.deploy("spinning", WORK, timeout="0.5s")
    call(mesh, "spinning", spin=True)
    mesh.cs("admin", "health")
    # With no invoker that takes any, what comes waits until the queue was read.
    mesh.cs("admin", "drain", "cs-invoker-pool")
    for _ in range(3):
        start(mesh, "work")


@pytest.mark.timeout(150)
def test_every_documented_series_has_a_value_after_traffic(measured: Mesh, ports: dict[str, int]) -> None:
    pages = Pages(ports)
    roles = {"invokeScheduleRoles": ["admin"], "invokeCadenceRoles": ["admin"]}
    measured.deploy("work", WORK, **roles)
    with pages.watching():
        kill_an_invoker(measured)
        run_some_of_everything(measured)
        deadline = time.monotonic() + 30
        while pages.missing() and time.monotonic() < deadline:
            time.sleep(0.25)
        measured.cs("admin", "undrain", "cs-invoker-pool")
    assert pages.missing() == set(), "documented, and never more than zero"
    assert pages.undocumented() == set(), "shown, and not documented"
    known = {series.name: set(series.labels) for found in all_series().values() for series in found}
    assert {name: found for name, found in pages.labels.items() if name in known and not found <= known[name]} == {}
    unwired = {
        f"{process} {series.name}"
        for process, found in all_series().items()
        if process != EVERY
        for series in found
        if series.name not in pages.shown[process]
    }
    assert unwired == set(), "documented, and not on the page of its process"
