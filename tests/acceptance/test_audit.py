"""What was changed, by whom: over REST, as server-sent events, and with the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.conftest import BIN, GREET, TENANT, Mesh


def _kinds(mutations: list[dict[str, Any]]) -> list[str]:
    kinds = {"function_created", "draft_uploaded", "version_published", "alias_set"}
    return [kind for mutation in mutations for kind in kinds if kind in mutation]


def _log(mesh: Mesh, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in mesh.cs("audit", "log", *options).out.splitlines()]


def test_a_deploy_is_three_changes_by_rest_and_by_command(mesh: Mesh) -> None:
    mesh.deploy("audited", GREET)
    answer = mesh.rest("GET", "/mutations?resource=default/audited&page_size=2").json()
    rest = mesh.rest("GET", f"/mutations?resource=default/audited&page_token={answer['next_page_token']}").json()
    mutations = answer["mutations"] + rest["mutations"]
    assert _kinds(mutations) == ["function_created", "draft_uploaded", "version_published"]
    assert mutations[2]["version_published"]["alias"]["alias"] == "live"
    assert {mutation["actor"]["subject"] for mutation in mutations} == {"dev"}
    logged = _log(mesh, "--resource", "default/audited")
    assert [mutation["mutation_id"] for mutation in logged] == [mutation["mutation_id"] for mutation in mutations]
    assert _log(mesh, "--resource", "default/audited", "--limit", "1") == logged[-1:]
    assert _log(mesh, "--resource", "default/audited", "--by", "nobody") == []


def test_events_go_on_from_the_last_id(mesh: Mesh) -> None:
    url = f"{mesh.url}/v1/tenants/{TENANT}/mutations:watch"
    with _events(url, mesh.admin) as events:
        first = next(events)
        assert (first["event"], json.loads(first["data"])) == ("cursor", {"cursor": first["id"]})
        mesh.deploy("streamed", GREET)
        seen = [next(events) for _ in range(2)]
    with _events(url, mesh.admin, **{"last-event-id": seen[0]["id"]}) as events:
        again = next(events)
        assert again == seen[1]
    assert _kinds([json.loads(event["data"]) for event in seen]) == ["function_created", "draft_uploaded"]


def test_the_command_line_follows(mesh: Mesh) -> None:
    mesh.deploy("followed", GREET)
    command = [BIN / "cs", "audit", "log", "-f", "--resource", "default/followed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=mesh.home, env=mesh.environment) as follower:
        assert follower.stdout is not None
        try:
            lines = [json.loads(follower.stdout.readline()) for _ in range(3)]
            mesh.deploy("unrelated", GREET)
            mesh.rest("PUT", "/namespaces/default/functions/followed/aliases/next", json={"version": 1})
            lines.append(json.loads(follower.stdout.readline()))
        finally:
            follower.terminate()
    assert _kinds(lines) == ["function_created", "draft_uploaded", "version_published", "alias_set"]


def test_another_tenants_log_is_refused(mesh: Mesh) -> None:
    refused = mesh.cs("audit", "log", "--tenant", "t_accept2", expect=1)
    assert refused.error["reason"] == "CS_AUTHZ_TENANT_MISMATCH"


@contextmanager
def _events(url: str, token: str, **headers: str) -> Iterator[Iterator[dict[str, str]]]:
    sent = {"authorization": f"Bearer {token}", **headers}
    with httpx.stream("GET", url, headers=sent, timeout=20, trust_env=False) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        yield _parse(answer.iter_lines())


def _parse(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        else:
            yield event
            event = {}


def test_the_ledger_has_every_change_and_a_flipped_bit_is_found(mesh: Mesh, tmp_path: Path) -> None:
    mesh.deploy("ledgered", GREET)
    wanted = {mutation["mutation_id"] for mutation in _log(mesh)}
    folder = mesh.data_dir / "ledger"

    def relayed() -> bool:
        return wanted <= {entry["entry"]["mutation"]["mutation_id"] for entry in _entries(folder)}

    deadline = time.monotonic() + 20
    while not relayed():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = mesh.cs("audit", "verify").json
    assert (found["sound"], found["faults"]) == (True, [])
    assert found["entries"] >= len(wanted)
    # On a copy: this mesh goes on with its own.
    copy = tmp_path / "ledger"
    shutil.copytree(folder, copy)
    (path,) = copy.glob("*.jsonl")
    whole = path.read_bytes()
    for damaged in (
        whole.replace(b'"ledgered"', b'"ledgerer"', 1),
        whole[: whole.rindex(b"\n", 0, -1) + 1],
        b"".join(whole.splitlines(keepends=True)[1:]),
    ):
        path.write_bytes(damaged)
        refused = mesh.cs("audit", "verify", expect=2, CS_AUDIT__PATH=str(copy))
        assert not refused.json["sound"]
        assert refused.json["faults"]
    path.unlink()
    copy.joinpath("lock").unlink()
    copy.rmdir()
    gone = mesh.cs("audit", "verify", expect=2, CS_AUDIT__PATH=str(copy))
    assert gone.error["reason"] == "CS_CLI_LEDGER"


def _entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
