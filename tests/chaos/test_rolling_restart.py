"""Every service restarted in turn under traffic: nothing accepted is lost, and who is refused is told to come again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cs_cli.stack.folders import Folders
from cs_cli.stack.restart import ORDER
from cs_cli.stack.state import read_state
from tests.support.scale import long_test, report, scaled
from tests.support.waiting import wait_until

BIN = Path(sys.executable).parent
TENANT = "t_demo01"
RATE = scaled(short=20, full=200)
RESTARTED = scaled(short=("cs-invoker-pool", "cs-http-gateway"), full=ORDER)
# Long enough that some are in flight at any moment.
CODE = """
export default async function handle(event, ctx) {
  await new Promise((done) => setTimeout(done, 100));
  return { statusCode: 200, body: event.key };
}
"""
MANIFEST = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"], "maxConcurrency": 100, "timeout": "30s"}}
pytestmark = [pytest.mark.xdist_group("stack"), long_test]


@dataclass
class Mesh:
    """A mesh of its own, with one function."""

    folders: Folders
    environment: dict[str, str]
    url: str = ""
    token: str = ""

    def cs(self, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / "cs", *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def pids(self) -> dict[str, int]:
        state = read_state(self.folders.state)
        return {} if state is None else {child.name: child.pid for child in state.children}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    tmp_path = tmp_path_factory.mktemp("mesh")
    code = tmp_path / "echo"
    code.mkdir()
    (code / "index.js").write_text(CODE)
    (code / "manifest.json").write_text(json.dumps(MANIFEST))
    (code / "event.json").write_text('{"key": "first"}')
    folders = Folders(tmp_path / "data")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CS_", "CODE_SOUS_"))}
    made = Mesh(folders, {**inherited, "XDG_CONFIG_HOME": str(tmp_path), "CODE_SOUS_DATA_DIR": str(folders.root)})
    try:
        made.url = json.loads(made.cs("up", "--detach", "--port", "0", "--example", str(code)))["api_url"]
        made.token = made.cs("auth", "dev-token", "--tenant", TENANT, "--role", "admin").strip()
        yield made
    finally:
        made.cs("down")


@dataclass
class Traffic:
    """Calls at a steady rate, each with a key of its own, and what came of them."""

    mesh: Mesh
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the key of the call: the activation, as it was answered."""
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def run(self, until: asyncio.Event) -> None:
        headers = {"authorization": f"Bearer {self.mesh.token}"}
        limits = httpx.Limits(max_connections=None)
        base = f"{self.mesh.url}/v1/tenants/{TENANT}"
        async with httpx.AsyncClient(headers=headers, timeout=30, limits=limits, base_url=base) as client:
            async with asyncio.TaskGroup() as group:
                while not until.is_set():
                    group.create_task(self._call(client))
                    await asyncio.sleep(1 / RATE)
            for told in self.ended.values():
                stored = await client.get(f"/activations/{told['activation_id']}")
                # Not lost, and not ended a second time in another way.
                if stored.status_code != 200 or _end(stored.json()["activation"]) != _end(told):
                    self.wrong.append(f"{told} became {stored.status_code} {stored.text}")

    async def _call(self, client: httpx.AsyncClient) -> None:
        key = str(uuid.uuid4())
        body = {"ref": "live", "event": {"key": key}, "idempotency_key": key}
        try:
            answer = await client.post("/namespaces/default/functions/echo:invoke", json=body)
        except httpx.HTTPError as error:
            self.wrong.append(repr(error))
            return
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.ended[key] = activation = answer.json()["activation"]
            if not activation["status"].endswith("SUCCESS"):
                self.wrong.append(f"{activation}")
        elif not (answer.status_code in (429, 503) and "retry-after" in answer.headers):
            self.wrong.append(f"{answer.status_code} {answer.text}")


def _end(activation: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(activation.get(name) for name in ("status", "attempt", "response", "end_time"))


async def _under_traffic(mesh: Mesh, what: Any) -> Traffic:
    """Do `what` in a thread, while calls come in."""
    traffic, until = Traffic(mesh), asyncio.Event()
    calls = asyncio.create_task(traffic.run(until))
    await wait_until(lambda: len(traffic.ended) > 5)
    try:
        await asyncio.to_thread(what)
        answered = traffic.statuses[200]
        await wait_until(lambda: traffic.statuses[200] > answered + 5)
    finally:
        until.set()
        await calls
    return traffic


async def test_restarting_every_service_in_turn_fails_no_call_but_those_told_to_come_again(mesh: Mesh) -> None:
    before = mesh.pids()
    told: list[dict[str, Any]] = []
    traffic = await _under_traffic(mesh, lambda: told.extend(json.loads(mesh.cs("restart", *RESTARTED))["restarted"]))
    report("rolling restart", rate=RATE, statuses=dict(traffic.statuses), wrong=len(traffic.wrong), restarts=told)
    assert traffic.wrong == []
    assert [one["name"] for one in told] == list(RESTARTED)
    assert not any(one["killed"] for one in told)
    after = mesh.pids()
    assert {name for name in before if before[name] != after[name]} == set(RESTARTED)
    ids = {activation["activation_id"] for activation in traffic.ended.values()}
    assert len(ids) == len(traffic.ended)


async def test_a_gateway_that_ends_without_draining_fails_calls(mesh: Mesh) -> None:
    traffic = await _under_traffic(mesh, lambda: os.kill(mesh.pids()["cs-http-gateway"], signal.SIGKILL))
    assert traffic.wrong
