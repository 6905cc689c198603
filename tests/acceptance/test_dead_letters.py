"""A request that was given up, and what an operator does with it, on the real mesh."""

from __future__ import annotations

from tests.acceptance.conftest import TENANT, Mesh

FLAKY = """
export default (event, ctx) => {
  if (ctx.version < 2) throw new Error(`no ${ctx.attempt}`);
  return { statusCode: 200, body: `fixed, ${event.name}` };
};
"""


def test_list_show_redrive_onto_a_fix_and_purge(mesh: Mesh) -> None:
    mesh.deploy("flaky", FLAKY, retry={"maxAttempts": 3, "initialBackoff": "0.1s"})
    body = {"ref": "live", "event": {"name": "Ada"}, "mode": "INVOKE_MODE_ASYNC"}
    accepted = mesh.rest("POST", "/namespaces/default/functions/flaky:invoke", json=body).json()["activation"]
    ended = mesh.rest("GET", f"/activations/{accepted['activation_id']}:wait").json()["activation"]
    assert (ended["status"], ended["error"]["message"], ended["attempt"]) == ("ACTIVATION_STATUS_ERROR", "no 3", 3)
    assert [failed["error"]["message"] for failed in ended["failed_attempts"]] == ["no 1", "no 2"]

    only = ("--tenant", TENANT, "--function", "flaky")
    (letter,) = mesh.cs("dlq", "list", *only).json["dead_letters"]
    assert letter["activation_id"] == accepted["activation_id"]
    shown = mesh.cs("dlq", "show", letter["dead_letter_id"]).json
    assert (shown["cause"]["reason"], shown["event"]) == ("CS_RUNTIME_EXCEPTION", '{"name":"Ada"}')

    mesh.deploy("flaky", FLAKY + "// fixed")
    assert mesh.cs("dlq", "redrive", expect=1).error["message"].startswith("name dead letters")
    (dry,) = mesh.cs("dlq", "redrive", *only, "--version", "2", "--dry-run").json["redrives"]
    assert dry["activation_id"] == ""
    (redrive,) = mesh.cs("dlq", "redrive", *only, "--version", "2").json["redrives"]
    again = mesh.rest("GET", f"/activations/{redrive['activation_id']}:wait").json()["activation"]
    assert again["response"]["body"] == "fixed, Ada"
    assert again["redrive_of"]["activation_id"] == accepted["activation_id"]

    assert mesh.cs("dlq", "purge", *only).json["purged"] == 1
    assert mesh.cs("dlq", "list", *only).json["dead_letters"] == []
    assert mesh.cs("dlq", "show", letter["dead_letter_id"], expect=1).error["reason"] == "CS_NOT_FOUND_DEAD_LETTER"
