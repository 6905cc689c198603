"""Activities that functions on the mesh serve, through the stand-in and through a real Cadence server.

Both are held to the same scenarios, so that the stand-in cannot drift from what it stands for.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cadence.api.v1.common_pb2 import RetryPolicy

from cs_cli.activity_run import ActivityCall, ActivityEnd, ActivityRun
from cs_core.rpc.cadence import CadenceConnection
from tests.acceptance.conftest import TENANT, Mesh
from tests.support.cadence_server import NotHereError, find_server, running_server
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("interop-cadence"), pytest.mark.timeout(2_100)]

DOMAIN, TASK_LIST = "demo", "jobs"
FUNCTION = """
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export default async function handle(event, ctx) {
  const { attempt, activity_type: type } = ctx.trigger;
  switch (event?.do) {
    case "fail":
      throw new TypeError(`as you wish, attempt ${attempt}`);
    case "spin":
      for (;;) {}
    case "beat":
      for (let number = 0; number < event.times; number++) {
        await cs.cadence.heartbeat({ number });
        await sleep(100);
      }
      return "beaten";
    default:
      return { type, attempt, event };
  }
}
"""


@dataclass
class Place:
    """A mesh and the server that it serves."""

    mesh: Mesh
    cadence: CadenceConnection

    async def start(self, event: Any, *, activity: str = "Work", timeout: float = 30, **call: Any) -> ActivityRun:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        length = timedelta(seconds=timeout)
        run = ActivityRun(self.cadence, ActivityCall(DOMAIN, TASK_LIST, activity, data, timeout=length, **call))
        await run.start()
        return run

    async def run(self, event: Any, **call: Any) -> ActivityEnd:
        return await (await self.start(event, **call)).finish()


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Place]:
    """The mesh with the server of a kind, a function, and a binding that polls."""
    mesh = Mesh(folder)
    if kind == "standin":
        async with _mesh(mesh, "--with-cadence") as place:
            yield place
        return
    try:
        executable = await asyncio.to_thread(find_server)
    except NotHereError as error:
        pytest.skip(str(error))
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the Cadence server cannot be built:\n{error.stderr}")
    async with running_server(executable, folder, DOMAIN) as target, _mesh(mesh, target=target) as place:
        yield place


@asynccontextmanager
async def _mesh(mesh: Mesh, *options: str, target: str = "") -> AsyncIterator[Place]:
    def up() -> str:
        environment = {"CS_CADENCE__TARGET": target} if target else {}
        mesh.url = mesh.cs("up", "--detach", "--port", "0", *options, **environment).json["api_url"]
        mesh.cs("auth", "login", "--tenant", TENANT, "--token", mesh.admin, "--api-url", mesh.url)
        roles = {"invokeCadenceRoles": ["admin"], "workerTimeout": "5s"}
        mesh.deploy_bundle("work", FUNCTION, {"runtime": "cs-js", "config": roles})
        place = ("--domain", DOMAIN, "--tasklist", TASK_LIST)
        mesh.cs("cadence", "worker", "create", "jobs", *place, "--activity", "Work=work@live")
        if target:
            return target
        ports = json.loads((mesh.data_dir / "state.json").read_text())["ports"]
        return f"127.0.0.1:{ports['cadence']}"

    try:
        address = await asyncio.to_thread(up)
        async with CadenceConnection(address, "tests") as cadence:

            def polls() -> bool:
                found = mesh.rest("GET", "/namespaces/default/cadence/workers/jobs").json()["worker_binding"]
                return found["state"] == "WORKER_BINDING_STATE_ACTIVE" and not found["status_message"]

            await wait_until(polls, within=60)
            yield Place(mesh, cadence)
    finally:
        await asyncio.to_thread(mesh.cs, "down")


async def completes(place: Place) -> None:
    end = await place.run({"name": "Ada"})
    assert (end.how, json.loads(end.data)) == (
        "completed",
        {"type": "Work", "attempt": 0, "event": {"name": "Ada"}},
    )
    assert json.loads((await place.run(b'1 "two"')).data)["event"] == [1, "two"]


async def fails_with_reason_and_details(place: Place) -> None:
    end = await place.run({"do": "fail"})
    details = json.loads(end.data)
    assert (end.how, end.reason) == ("failed", "CS_RUNTIME_EXCEPTION")
    assert (details["type"], details["message"]) == ("TypeError", "as you wish, attempt 0")
    assert (await place.run({}, activity="Other")).reason == "CS_CADENCE_ACTIVITY_UNMAPPED"
    assert (await place.run(b"{")).reason == "CS_CADENCE_BAD_INPUT"


async def is_tried_again_by_the_workflows_policy(place: Place) -> None:
    policy = RetryPolicy(maximum_attempts=3, backoff_coefficient=1.0)
    policy.initial_interval.FromTimedelta(timedelta(seconds=1))
    policy.expiration_interval.FromTimedelta(timedelta(seconds=60))
    end = await place.run({"do": "fail"}, retry=policy)
    assert (end.how, end.attempt, json.loads(end.data)["message"]) == ("failed", 2, "as you wish, attempt 2")


async def times_out_by_the_functions_limit(place: Place) -> None:
    end = await place.run({"do": "spin"})
    assert (end.how, end.reason) == ("failed", "timeout")


async def times_out_by_cadences_limit(place: Place) -> None:
    """The late answer is refused, and the next task goes through."""
    end = await place.run({"do": "spin"}, timeout=2)
    assert end.how in ("timed_out", "failed")
    assert end.reason in ("start_to_close", "timeout")
    assert (await place.run(1)).how == "completed"


async def lives_by_its_heartbeats(place: Place) -> None:
    end = await place.run({"do": "beat", "times": 40}, heartbeat_timeout=timedelta(seconds=3))
    assert (end.how, end.data) == ("completed", b'"beaten"')
    silent = await place.run({"do": "spin"}, heartbeat_timeout=timedelta(seconds=2))
    assert (silent.how, silent.reason) == ("timed_out", "heartbeat")


async def is_cancelled_through_its_heartbeats(place: Place) -> None:
    run = await place.start({"do": "beat", "times": 1_000}, heartbeat_timeout=timedelta(seconds=10))
    finishing = asyncio.create_task(run.finish())

    def runs() -> bool:
        found = place.mesh.rest("GET", "/namespaces/default/functions/work/activations").json()["activations"]
        return any(
            item["status"] == "ACTIVATION_STATUS_RUNNING"
            and item["trigger"]["cadence"]["workflow_id"] == run.workflow_id
            for item in found
        )

    await wait_until(runs, within=30)
    await run.cancel()
    end = await finishing
    assert (end.how, json.loads(end.data)["reason"]) == ("canceled", "CS_RUNTIME_CANCELLED")


SCENARIOS: tuple[Callable[[Place], Coroutine[Any, Any, None]], ...] = (
    completes,
    fails_with_reason_and_details,
    is_tried_again_by_the_workflows_policy,
    times_out_by_the_functions_limit,
    times_out_by_cadences_limit,
    lives_by_its_heartbeats,
    is_cancelled_through_its_heartbeats,
)


@pytest.mark.parametrize("kind", ["standin", "cadence"])
async def test_an_activity_is_served_in_every_way_that_it_can_end(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as place:
        for scenario in SCENARIOS:
            print(kind, scenario.__name__)
            await scenario(place)
