"""The tutorial: from an empty folder to a rollback, with the command line only."""

from __future__ import annotations

from tests.acceptance.conftest import TENANT, Mesh


def test_a_newcomer_writes_tests_publishes_invokes_and_rolls_back(mesh: Mesh) -> None:
    # A function is a folder.
    made = mesh.cs("fn", "init", "tutorial").json
    assert made["files"] == ["event.json", "index.js", "manifest.json"]

    # It runs here first, in the same kind of cell that the mesh uses.
    tried = mesh.cs("fn", "test", "--path", "tutorial", "--event", "tutorial/event.json").json
    assert tried["status"] == "success"
    assert tried["response"]["body"] == "Hello, Ada!"

    # Create, draft, publish, alias: one by one.
    assert mesh.cs("fn", "create", "tutorial", "--namespace", "default").json["state"] == "active"
    draft = mesh.cs("fn", "draft", "upload", "tutorial", "--path", "tutorial").json
    assert draft["draft_id"].startswith("drf_")
    assert draft["warnings"] == []
    first = mesh.cs("fn", "publish", "tutorial", "--draft", draft["draft_id"], "--invoke-http-roles", "admin").json
    assert first["version"] == 1
    assert first["config"]["timeout"] == "3s"
    alias = mesh.cs("fn", "alias", "set", "tutorial", "live", "--version", "1").json
    assert (alias["alias"], alias["version"]) == ("live", 1)

    # Invoke, by alias and by version.
    event = '{"name": "Grace"}'
    by_alias = mesh.cs("fn", "invoke", "tutorial@live", "--event", "-", stdin=event).json
    assert by_alias["status"] == "success"
    assert by_alias["response"] == {
        "statusCode": 200,
        "headers": {},
        "body": "Hello, Grace!",
        "isBase64Encoded": False,
    }
    by_version = mesh.cs("fn", "invoke", "--event", "-", "tutorial@1", stdin=event).json
    assert by_version["function"]["version"] == 1

    # What it logged.
    logged = mesh.cs("fn", "logs", by_alias["activation_id"]).json["entries"]
    assert [(line["level"], line["message"]) for line in logged] == [("info", "greeting Grace")]
    listed = mesh.cs("fn", "activations", "tutorial").json["activations"]
    assert [item["activation_id"] for item in listed] == [by_version["activation_id"], by_alias["activation_id"]]

    # A second version, in one go; and back.
    source = mesh.home / "tutorial" / "index.js"
    source.write_text(source.read_text().replace("Hello", "Good day"))
    second = mesh.cs("fn", "deploy", "--path", "tutorial", "--alias", "live").json
    assert (second["version"], second["alias"]["previous_version"]) == (2, 1)
    assert mesh.cs("fn", "invoke", "tutorial@live").json["response"]["body"] == "Good day, world!"
    assert mesh.cs("fn", "rollback", "tutorial", "live").json["version"] == 1
    assert mesh.cs("fn", "invoke", "tutorial@live").json["response"]["body"] == "Hello, world!"
    assert [item["version"] for item in mesh.cs("fn", "versions", "tutorial").json["versions"]] == [2, 1]

    # As a web page.
    page = mesh.cs("http", "invoke", "default/tutorial/live/any/path")
    assert page.out.splitlines() == ["status=200", "Hello, world!"]

    # Away, and back again.
    assert mesh.cs("fn", "delete", "tutorial").json["state"] == "deleted"
    assert mesh.cs("fn", "invoke", "tutorial@live", expect=1).error["reason"] == "CS_NOT_FOUND_FUNCTION"
    assert mesh.cs("fn", "undelete", "tutorial").json["state"] == "active"
    assert mesh.cs("fn", "invoke", "tutorial@live").json["status"] == "success"


def test_who_am_i_tells_tenant_address_and_the_beginning_of_the_token(mesh: Mesh) -> None:
    said = mesh.cs("auth", "whoami").out.splitlines()
    assert said == [f"tenant={TENANT}", f"api_url={mesh.url}", f"token={mesh.admin[:8]}"]


def test_the_stack_tells_what_runs(mesh: Mesh) -> None:
    parts = mesh.cs("status").json["parts"]
    assert {part["name"] for part in parts} == {
        "redis",
        "cadence",
        "cs-control",
        "cs-http-gateway",
        "cs-scheduler",
        "cs-cadence-poller",
        "cs-invoker-pool",
        "envoy",
    }
    assert {part["state"] for part in parts} == {"ready"}
    assert '"event": "ready"' in mesh.cs("logs", "cs-control", "--lines", "1000000").out
    assert mesh.cs("version").json["version"]


def test_a_second_stack_on_the_same_data_is_refused(mesh: Mesh) -> None:
    refused = mesh.cs("up", "--port", "0", expect=1)
    assert refused.error["reason"] == "CS_CLI_RUNNING"


def test_a_taken_port_is_named(mesh: Mesh) -> None:
    port = mesh.url.rpartition(":")[2]
    refused = mesh.cs("up", "--port", port, "--data-dir", str(mesh.home / "elsewhere"), expect=2)
    assert refused.error["reason"] == "CS_CLI_PORT_IN_USE"
    assert port in refused.error["message"]
