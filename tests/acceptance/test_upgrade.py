"""A data directory that an earlier commit made, under this release: what was there works on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cs_core.store.schema import VERSION
from tests.acceptance.conftest import Mesh
from tests.support.old_store import unpack_old_store
from tests.support.redis_server import RedisServer


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def elsewhere(home: Path) -> Iterator[RedisServer]:
    """The store of the earlier commit, on a server that is no stack's own."""
    unpack_old_store(home / "old")
    server = RedisServer(durable=True, fsync="no", schema=False)
    shutil.copy(home / "old" / "store" / "appendonly.aof", server.folder)
    server.start()
    yield server
    server.close()


def awaited(look: Callable[[], Any], within: float = 60.0) -> Any:
    """What is seen once there is something to see."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return seen


def test_a_data_directory_of_an_earlier_commit_is_migrated_and_goes_on(home: Path) -> None:
    mesh = Mesh(home)
    known = unpack_old_store(mesh.data_dir)
    tenant = known["tenant"]
    up = mesh.cs("up", "--detach", "--port", "0").json
    try:
        assert up["migrated_from"] == 0
        mesh.url = up["api_url"]
        token = mesh.token(tenant, "admin")

        def call(method: str, path: str, **more: Any) -> Any:
            return mesh.rest(method, f"/v1/tenants/{tenant}{path}", token=token, **more).json()

        def activation(activation_id: str) -> Any:
            return call("GET", f"/activations/{activation_id}:wait")["activation"]

        # What was changed before there was a ledger is in it, though nothing was changed since.
        logged = {mutation["mutation_id"] for mutation in call("GET", "/mutations")["mutations"]}
        assert len(logged) > 10

        def relayed() -> bool:
            lines = "".join(path.read_text() for path in (mesh.data_dir / "ledger").glob("*.jsonl"))
            return all(mutation in lines for mutation in logged)

        awaited(relayed)
        # Functions run, and what they kept is there.
        body = {"ref": "live", "event": {"item": 8}}
        counted = call("POST", "/namespaces/default/functions/count:invoke", json=body)["activation"]
        assert counted["response"]["body"] == '{"count":2}'
        # What was finished is there; what waited ran; what ran while its invoker went away ran again.
        done, waiting, running = (activation(known[which]) for which in ("done", "waiting", "running"))
        assert (done["status"], done["attempt"]) == ("ACTIVATION_STATUS_SUCCESS", 1)
        assert "Hello, Ada!" in done["response"]["body"]
        assert "Hello, Bob!" in waiting["response"]["body"]
        assert (running["status"], running["attempt"]) == ("ACTIVATION_STATUS_SUCCESS", 2)

        # Schedules tick on from where they were, and what was paused is.
        def schedule(name: str) -> Any:
            return call("GET", f"/namespaces/default/schedules/{name}")["schedule"]["status"]

        ticks = int(schedule("every-second")["published_ticks"])
        assert ticks >= 2
        awaited(lambda: int(schedule("every-second")["published_ticks"]) > ticks)
        assert schedule("paused-one")["state"] == "SCHEDULE_STATE_PAUSED"
        # What was given up is redriven.
        redrives = mesh.cs("dlq", "redrive", "--tenant", tenant, "--function", "flaky").json["redrives"]
        again = activation(redrives[0]["activation_id"])
        assert again["redrive_of"]["activation_id"] == known["dead"]
        assert (len(redrives), again["error"]["message"]) == (1, "no 2")
    finally:
        mesh.cs("down")


def test_a_store_that_is_not_the_stacks_own_is_migrated_when_told_to(home: Path, elsewhere: RedisServer) -> None:
    mesh = Mesh(home)
    refused = mesh.cs("up", "--detach", "--port", "0", expect=2, CS_STORE__URL=elsewhere.url).error
    assert refused["reason"] == "CS_STORE_SCHEMA"
    assert "cs up --migrate" in refused["message"]
    assert not (mesh.data_dir / "state.json").exists()
    done = mesh.cs("store", "migrate", CS_STORE__URL=elsewhere.url).json
    assert (done["from"], done["to"]) == (0, VERSION)
    assert [step["to"] for step in done["steps"]] == list(range(1, VERSION + 1))
