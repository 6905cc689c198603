"""A function that serves Cadence activities, on the real mesh, with the stand-in for a Cadence server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Mesh
from tests.support.waiting import wait_until

CHARGE = """
export default async function handle(event, ctx) {
  if (event.amount < 0) throw new RangeError("an amount is positive");
  return { charged: event.amount, by: ctx.trigger.kind, as: ctx.principal.roles };
}
"""


WORKERS = "/namespaces/default/cadence/workers"


def bind(mesh: Mesh, name: str, activities: dict[str, str], *, domain: str = "demo", task_list: str = "") -> Any:
    """Make a worker binding by REST; activities are `function@ref` by type."""
    mapped = {
        kind: dict(zip(("function", "ref"), target.split("@"), strict=True)) for kind, target in activities.items()
    }
    spec = {"domain": domain, "task_list": task_list or name, "activities": mapped}
    return mesh.rest("POST", WORKERS, json={"worker": name, "spec": spec})


@pytest.fixture(scope="module")
def run(mesh: Mesh) -> Callable[..., Any]:
    """Run an activity that `charge` serves."""
    mesh.deploy("charge", CHARGE, invokeCadenceRoles=["admin"])
    place = ("--domain", "demo", "--tasklist", "payments")
    created = mesh.cs("cadence", "worker", "create", "payments", *place, "--activity", "Charge=charge@live").json
    assert (created["state"], created["spec"]["worker_id"]) == ("active", "payments")

    def run(activity: str, data: str, *more: str) -> Any:
        return mesh.cs("cadence", "run", activity, "--worker", "payments", "--input", "-", *more, stdin=data).json

    return run


def test_an_activity_is_run_by_the_function_and_answered(mesh: Mesh, run: Callable[..., Any]) -> None:
    end = run("Charge", '{"amount": 12}')
    assert (end["how"], json.loads(end["result"])) == (
        "completed",
        {"charged": 12, "by": "cadence", "as": ["admin"]},
    )
    (activation, *_) = mesh.rest("GET", "/namespaces/default/functions/charge/activations").json()["activations"]
    assert activation["trigger"]["cadence"]["workflow_id"] == end["workflow_id"]


def test_what_goes_wrong_is_answered_with_its_reason(run: Callable[..., Any]) -> None:
    thrown = run("Charge", '{"amount": -1}')
    details = json.loads(thrown["result"])
    assert (thrown["how"], thrown["reason"]) == ("failed", "CS_RUNTIME_EXCEPTION")
    assert (details["message"], details["type"]) == ("an amount is positive", "RangeError")
    assert run("Refund", "{}")["reason"] == "CS_CADENCE_ACTIVITY_UNMAPPED"


def test_a_binding_is_listed_changed_paused_resumed_and_deleted(mesh: Mesh, greet: str) -> None:
    assert bind(mesh, "other", {"Greet": f"{greet}@live"}).status_code == 201
    listed = mesh.cs("cadence", "worker", "list").json["worker_bindings"]
    assert "other" in [item["worker"] for item in listed]
    assert mesh.cs("cadence", "worker", "pause", "other").json["state"] == "paused"
    assert mesh.cs("cadence", "worker", "resume", "other").json["state"] == "active"
    body = {"spec": {"max_inflight_tasks": 3}, "update_mask": "spec.maxInflightTasks"}
    changed = mesh.rest("PATCH", f"{WORKERS}/other", json=body)
    assert changed.json()["worker_binding"]["spec"]["max_inflight_tasks"] == 3, changed.text
    mesh.cs("cadence", "worker", "delete", "other")
    assert mesh.cs("cadence", "worker", "get", "other", expect=1).error["reason"] == "CS_NOT_FOUND_WORKER"


def test_a_role_that_the_version_does_not_list_is_refused_at_each_task(mesh: Mesh, greet: str) -> None:
    """`greet` lists no roles for Cadence."""
    bind(mesh, "closed", {"Hi": f"{greet}@live"})
    end = mesh.cs("cadence", "run", "Hi", "--fail", expect=3).json
    assert (end["how"], end["reason"]) == ("failed", "CS_AUTHZ_ROLE_MISSING")


def test_bad_bindings_are_refused_with_what_is_wrong(mesh: Mesh, greet: str) -> None:
    def refused(*arguments: Any, **more: Any) -> tuple[int, str]:
        answer = bind(mesh, *arguments, **more)
        return answer.status_code, answer.json()["details"][0]["reason"]

    target = f"{greet}@live"
    assert refused("w-1", {"A": "nothing@live"}) == (404, "CS_NOT_FOUND_FUNCTION")
    assert refused("w-1", {"A": f"{greet}@nothing"}) == (404, "CS_NOT_FOUND_ALIAS")
    assert refused("w-1", {"A": f"{greet}@99"}) == (404, "CS_NOT_FOUND_VERSION")
    assert refused("w-1", {}) == (400, "CS_VALIDATION_FIELD")
    assert refused("W", {"A": target}) == (400, "CS_VALIDATION_FIELD")
    assert refused("w-1", {"A": target}, domain="d" * 257) == (400, "CS_VALIDATION_FIELD")
    assert bind(mesh, "w-1", {"A": target}).status_code == 201
    assert bind(mesh, "w-1", {"A": target}).status_code == 200
    assert refused("w-1", {"B": target}) == (409, "CS_CONFLICT_EXISTS")


async def test_a_binding_that_cannot_work_says_why_and_its_neighbour_goes_on(
    mesh: Mesh, run: Callable[..., Any]
) -> None:
    bind(mesh, "lost", {"A": "charge@live"}, domain="nowhere")

    def failing() -> Any:
        found = mesh.rest("GET", f"{WORKERS}/lost").json()["worker_binding"]
        return found if found["state"] == "WORKER_BINDING_STATE_FAILING" else None

    found = await wait_until(failing, within=30)
    assert "domain nowhere does not exist" in found["status_message"]
    assert run("Charge", '{"amount": 1}')["how"] == "completed"
