"""Following an activation on the real mesh: over gRPC, as server-sent events, and with the command line."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from codesous.gateway.v1 import activation_service_pb2
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from tests.acceptance.conftest import TENANT, Mesh, Stubs

TALK = """
export default async function handle() {
  for (const word of ["one", "two", "three"]) {
    console.log(word);
    await new Promise((done) => setTimeout(done, 250));
  }
  return { statusCode: 200, body: "said" };
}
"""
_EVENT = re.compile(r"id: (\S+)\nevent: (activation|log)\ndata: (.*)")


@pytest.fixture(scope="module")
def talk(mesh: Mesh) -> str:
    """A function that logs while it runs."""
    mesh.deploy("talk", TALK)
    return "talk"


def _begin(mesh: Mesh, name: str) -> str:
    body = {"ref": "live", "mode": "INVOKE_MODE_ASYNC"}
    answer = mesh.rest("POST", f"/namespaces/default/functions/{name}:invoke", json=body)
    return str(answer.json()["activation"]["activation_id"])


def _events(text: str) -> list[tuple[str, str, dict[str, str]]]:
    found = [_EVENT.fullmatch(block) for block in text.strip().split("\n\n")]
    return [(match[1], match[2], json.loads(match[3])) for match in found if match]


def test_server_sent_events_arrive_while_it_runs_and_go_on_from_the_last_id(mesh: Mesh, talk: str) -> None:
    activation = _begin(mesh, talk)
    url = f"{mesh.url}/v1/tenants/{TENANT}/activations/{activation}:watch"
    headers = {"authorization": f"Bearer {mesh.admin}"}
    with httpx.stream("GET", url, headers=headers, timeout=20, trust_env=False) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        seen = ""
        for chunk in answer.iter_text():
            seen += chunk
            if '"message": "one"' in seen:
                break
    # Nothing is held back until the end: the run was still going on.
    assert mesh.rest("GET", f"/activations/{activation}").json()["activation"]["status"] == "ACTIVATION_STATUS_RUNNING"
    last = _events(seen.rpartition("\n\n")[0])[-1][0]
    rest = httpx.get(url, headers={**headers, "last-event-id": last}, timeout=20, trust_env=False)
    events = _events(rest.text)
    assert [data["message"] for _, kind, data in events if kind == "log"] == ["two", "three"]
    assert events[-1][1] == "activation"
    assert events[-1][2]["status"] == "ACTIVATION_STATUS_SUCCESS"


def test_over_grpc_the_stream_ends_with_the_result(mesh: Mesh, talk: str, stubs: Stubs) -> None:
    request = activation_service_pb2.WatchActivationRequest(tenant=TENANT, activation_id=_begin(mesh, talk))
    told = list(stubs.activations.WatchActivation(request, timeout=20, metadata=stubs.metadata))
    lines = [event.log.message for event in told if event.HasField("log")]
    assert lines == ["one", "two", "three"]
    assert told[-1].activation.status == ActivationStatus.ACTIVATION_STATUS_SUCCESS
    assert told[-1].activation.response.body == "said"


def test_what_is_not_there_is_refused_before_the_stream_begins(mesh: Mesh) -> None:
    answer = mesh.rest("GET", "/activations/00000000-0000-4000-8000-000000000000:watch")
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, "CS_NOT_FOUND_ACTIVATION")


def test_the_command_line_follows_to_the_end(mesh: Mesh, talk: str) -> None:
    records = [json.loads(line) for line in mesh.cs("fn", "invoke", f"{talk}@live", "--watch").out.splitlines()]
    assert [record["log"]["message"] for record in records if "log" in record] == ["one", "two", "three"]
    assert records[-1]["activation"]["response"]["body"] == "said"
    lines = mesh.cs("fn", "logs", "-f", _begin(mesh, talk)).out.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one", "two", "three"]
