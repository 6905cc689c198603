"""A schedule as its user sees it: made, seen ticking, paused, run by hand, deleted; by command line and by REST."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.acceptance.conftest import TENANT, Mesh

TICK = "export default async function handle(event, ctx) { return { event, tick: ctx.trigger.tick }; }"
PATH = "/namespaces/default/schedules"


@pytest.fixture(scope="module")
def tick(mesh: Mesh) -> str:
    mesh.deploy("tick", TICK, invokeScheduleRoles=["admin"])
    return "tick"


def published(mesh: Mesh, name: str, least: int, within: float = 30.0) -> Any:
    """The schedule once it has published so many ticks."""
    deadline = time.monotonic() + within
    while True:
        schedule = mesh.cs("schedule", "get", name).json
        if schedule["status"]["published_ticks"] >= least:
            return schedule
        assert time.monotonic() < deadline, schedule
        time.sleep(0.1)


def test_a_schedule_runs_a_function_until_it_is_paused(mesh: Mesh, tick: str) -> None:
    payload = mesh.home / "payload.json"
    payload.write_text('{"for": "everybody"}')
    made = mesh.cs(
        *("schedule", "create", "every-second", "--every", "1", "--fn", f"{tick}@live"),
        *("--payload", str(payload), "--overlap", "parallel"),
    ).json
    assert (made["status"]["state"], made["action"]["payload_json"]) == ("active", {"for": "everybody"})
    assert made["principal"]["subject"] == "dev"
    published(mesh, "every-second", 3)
    ahead = mesh.cs("schedule", "preview", "every-second", "--count", "2").json["ticks"]
    assert [each["outcome"] for each in ahead] == ["published", "published"]

    paused = mesh.cs("schedule", "pause", "every-second").json
    assert paused["status"]["state"] == "paused"
    history = mesh.cs("schedule", "history", "every-second").json["ticks"]
    assert [each["tick"] for each in history] == list(range(paused["status"]["last_tick"], 0, -1))
    assert {each["outcome"] for each in history} == {"published"}
    assert mesh.cs("schedule", "preview", "every-second", "--count", "1").json["ticks"][0]["message"] == (
        "the schedule is paused"
    )
    ran = mesh.rest("GET", f"/activations/{history[0]['activation_id']}:wait").json()["activation"]
    assert ran["status"] == "ACTIVATION_STATUS_SUCCESS"
    assert ran["trigger"]["schedule"]["tick"] == str(history[0]["tick"])
    assert ran["response"]["body"] == f'{{"event":{{"for":"everybody"}},"tick":{history[0]["tick"]}}}'

    by_hand = mesh.cs("schedule", "run", "every-second").json["activation_id"]
    assert mesh.rest("GET", f"/activations/{by_hand}:wait").json()["activation"]["status"] == (
        "ACTIVATION_STATUS_SUCCESS"
    )
    after = mesh.cs("schedule", "get", "every-second").json
    assert after["status"]["last_tick"] == paused["status"]["last_tick"]

    mesh.cs("schedule", "resume", "every-second")
    published(mesh, "every-second", after["status"]["published_ticks"] + 1)
    names = [each["schedule"] for each in mesh.cs("schedule", "list").json["schedules"]]
    assert "every-second" in names
    mesh.cs("schedule", "delete", "every-second")
    assert mesh.cs("schedule", "get", "every-second", expect=1).error["reason"] == "CS_NOT_FOUND_SCHEDULE"


def test_the_rest_paths_of_schedules(mesh: Mesh, tick: str) -> None:
    body = {
        "schedule": "nightly",
        "spec": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
        "action": {"function": tick, "ref": "live"},
    }
    assert mesh.rest("POST", PATH, json=body).status_code == 201
    assert mesh.rest("POST", PATH, json=body).status_code == 200
    # What stands in the query cannot speak for another tenant, or another schedule.
    got = mesh.rest("GET", f"{PATH}/nightly?tenant=t_evil00&schedule=other").json()["schedule"]
    assert (got["tenant"], got["schedule"], got["spec"]["cron"]) == (TENANT, "nightly", "30 2 * * *")
    changed = {"spec": {"cron": "0 4 * * *"}, "update_mask": "spec.cron", "etag": got["etag"]}
    assert mesh.rest("PATCH", f"{PATH}/nightly", json=changed).json()["schedule"]["spec"] == {
        "cron": "0 4 * * *",
        "timezone": "Europe/Berlin",
    }
    stale = mesh.rest("PATCH", f"{PATH}/nightly", json=changed)
    assert (stale.status_code, stale.json()["details"][0]["reason"]) == (409, "CS_CONFLICT_CONCURRENT")
    assert len(mesh.rest("GET", f"{PATH}/nightly:preview?count=3").json()["ticks"]) == 3
    assert mesh.rest("POST", f"{PATH}/nightly:pause", json={}).status_code == 200
    assert mesh.rest("POST", f"{PATH}/nightly:resume", json={}).status_code == 200
    assert mesh.rest("GET", f"{PATH}/nightly/ticks").json()["ticks"] == []
    assert mesh.rest("DELETE", f"{PATH}/nightly").status_code == 200
    assert mesh.rest("GET", f"{PATH}/nightly").status_code == 404


def test_bad_input_is_told_by_field(mesh: Mesh, tick: str) -> None:
    def fields(*options: str, fn: str = f"{tick}@live", name: str = "bad") -> list[str]:
        error = mesh.cs("schedule", "create", name, "--fn", fn, *options, expect=1).error
        return [each["field"] for each in error["violations"]]

    for every in ("0", "-1", "0.5", "86401", "1e12"):
        assert fields("--every", every) == ["spec.interval"], every
    for cron in ("* * * *", "61 * * * *", "0 0 30 2 *", "@daily"):
        assert fields("--cron", cron) == ["spec.cron"], cron
    assert fields("--cron", "* * * * *", "--tz", "Mars/Olympus") == ["spec.timezone"]
    assert fields("--at", "2020-01-01T00:00:00Z") == ["spec.once"]
    assert fields("--every", "5", fn="nothing@live") == ["action.function"]
    assert fields("--every", "5", fn=f"{tick}@nothing") == ["action.ref"]
    assert fields("--every", "5", name="X") == ["schedule"]
    assert mesh.cs("schedule", "create", "bad", "--fn", f"{tick}@live", expect=1).error["violations"]
