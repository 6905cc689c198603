"""Widening what a function may reach: a developer is told what is missing, an admin grants it, both see what is new."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.conftest import TENANT, Mesh

PATH = "/namespaces/default/functions/listed"


def manifest(*hosts: str) -> dict[str, Any]:
    return {
        "runtime": "cs-js",
        "capabilities": {"http": {"allowHosts": list(hosts)}},
        "config": {"invokeHttpRoles": ["admin"]},
    }


def deploy(mesh: Mesh, name: str, token: str, *hosts: str, expect: int = 0) -> Any:
    folder = mesh.home / name
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest(*hosts)))
    (folder / "index.js").write_text("export default () => 1")
    command = ("fn", "deploy", "--path", str(folder), "--alias", "live")
    return mesh.cs(*command, expect=expect, CODE_SOUS_TOKEN=token)


def test_a_developer_asks_and_an_admin_grants(mesh: Mesh) -> None:
    developer = mesh.token(TENANT, "developer")
    first = deploy(mesh, "reaching", mesh.admin, "api.example.com")
    assert first.json["capability_diff"]["added"]["hosts"] == ["api.example.com"]
    assert deploy(mesh, "reaching", developer, "api.example.com").json["capability_diff"] is None
    refused = deploy(mesh, "reaching", developer, "*.example.com", expect=1)
    assert refused.error["reason"] == "CS_AUTHZ_ACTION_DENIED"
    assert "cs:function:grant" in refused.error["message"]
    assert "alias live would newly reach hosts *.example.com" in refused.error["message"]
    # The developer publishes without the alias, and shows the admin what it is about.
    draft = mesh.cs(
        "fn", "draft", "upload", "reaching", "--path", str(mesh.home / "reaching"), CODE_SOUS_TOKEN=developer
    )
    published = mesh.cs("fn", "publish", "reaching", "--draft", draft.json["draft_id"], CODE_SOUS_TOKEN=developer).json
    told = mesh.cs("fn", "diff", "reaching", "live", str(published["version"]), CODE_SOUS_TOKEN=developer).json
    assert (told["from_version"], told["added"]["hosts"]) == (2, ["*.example.com"])
    assert told["removed"]["hosts"] == []
    set_alias = ("fn", "alias", "set", "reaching", "live", "--version", str(published["version"]))
    assert mesh.cs(*set_alias, expect=1, CODE_SOUS_TOKEN=developer).error["reason"] == "CS_AUTHZ_ACTION_DENIED"
    assert mesh.cs(*set_alias).json["capability_diff"]["added"]["hosts"] == ["*.example.com"]
    # Back is narrower, and forth again is wider.
    assert mesh.cs("fn", "rollback", "reaching", "live", CODE_SOUS_TOKEN=developer).json["version"] == 2
    mesh.cs("fn", "rollback", "reaching", "live", expect=1, CODE_SOUS_TOKEN=developer)


def test_by_rest_the_refusal_lists_what_would_be_new(mesh: Mesh) -> None:
    deploy(mesh, "listed", mesh.admin, "api.example.com")
    deploy(mesh, "listed", mesh.admin, "api.example.com", "other.example.com")
    newest = mesh.rest("GET", f"{PATH}/versions").json()["versions"][0]["version"]
    mesh.rest("PUT", f"{PATH}/aliases/live", json={"version": newest - 1})
    developer = mesh.token(TENANT, "developer")
    refused = mesh.rest("PUT", f"{PATH}/aliases/live", token=developer, json={"version": newest})
    assert refused.status_code == 403
    info = refused.json()["details"][0]
    assert info["metadata"] == {"action": "cs:function:grant", "hosts": "other.example.com"}
    diff = mesh.rest("GET", f"{PATH}/versions/{newest}:diff?from_version={newest - 1}", token=developer).json()
    assert diff["diff"]["added"]["hosts"] == ["other.example.com"]
    granted = mesh.rest("PUT", f"{PATH}/aliases/live", json={"version": newest}).json()
    assert granted["capability_diff"]["added"]["hosts"] == ["other.example.com"]
