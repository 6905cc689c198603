"""The same function by every way in: gRPC, gRPC-Web, REST, the web endpoint, the command line."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
from typing import Any

import grpc
import httpx
import pytest
from codesous.gateway.v1 import invocation_service_pb2
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from tests.acceptance.conftest import BIN, GREET, TENANT, Mesh, Stubs

SUCCESS = ActivationStatus.ACTIVATION_STATUS_SUCCESS
HELLO = "Hello, Ada!"
ECHO = """
export default async function handle(event) {
  return { statusCode: 200, headers: { "content-type": "application/json" }, body: JSON.stringify(event) };
}
"""


@pytest.fixture(scope="session")
def echo(mesh: Mesh) -> str:
    mesh.deploy("echo", ECHO)
    return "echo"


@pytest.mark.parametrize("ref", ["live", "1"])
def test_by_grpc(mesh: Mesh, greet: str, stubs: Stubs, ref: str) -> None:
    request = invocation_service_pb2.InvokeRequest(
        tenant=TENANT, namespace="default", function=greet, ref=ref, event_json=b'{"name": "Ada"}'
    )
    activation = stubs.invocations.Invoke(request, metadata=stubs.metadata).activation
    assert activation.status == SUCCESS
    assert activation.response.body == HELLO
    assert activation.function.version == 1


@pytest.mark.parametrize("ref", ["live", "1"])
def test_by_rest(mesh: Mesh, greet: str, ref: str) -> None:
    answer = mesh.rest(
        "POST", f"/namespaces/default/functions/{greet}:invoke", json={"ref": ref, "event": {"name": "Ada"}}
    )
    assert answer.status_code == 200
    activation = answer.json()["activation"]
    assert activation["status"] == "ACTIVATION_STATUS_SUCCESS"
    assert activation["response"]["body"] == HELLO
    read = mesh.rest("GET", f"/activations/{activation['activation_id']}").json()["activation"]
    # When it was claimed and delivered is on the record alone: the caller has its answer before the latter is known.
    assert {field: read[field] for field in read if field not in ("claim_time", "deliver_time")} == activation


@pytest.mark.parametrize("ref", ["live", "1"])
@pytest.mark.parametrize("text", [False, True], ids=["grpc-web", "grpc-web-text"])
def test_by_grpc_web(mesh: Mesh, greet: str, ref: str, text: bool) -> None:
    request = invocation_service_pb2.InvokeRequest(
        tenant=TENANT, namespace="default", function=greet, ref=ref, event_json=b'{"name": "Ada"}'
    ).SerializeToString()
    frame = b"\0" + struct.pack(">I", len(request)) + request
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    answer = httpx.post(
        f"{mesh.url}/codesous.gateway.v1.InvocationService/Invoke",
        content=base64.b64encode(frame) if text else frame,
        headers={"content-type": kind, "accept": kind, "x-grpc-web": "1", "authorization": f"Bearer {mesh.admin}"},
        trust_env=False,
    )
    # As text, each part is padded by itself.
    parts = re.findall(rb"[^=]+=*", answer.content) if text else []
    body = b"".join(base64.b64decode(part) for part in parts) if text else answer.content
    length = struct.unpack(">I", body[1:5])[0]
    response = invocation_service_pb2.InvokeResponse.FromString(body[5 : 5 + length])
    assert response.activation.response.body == HELLO
    assert b"grpc-status:0" in body[5 + length :].replace(b" ", b"")


@pytest.mark.parametrize("ref", ["live", "1"])
def test_by_the_web_endpoint(mesh: Mesh, greet: str, ref: str) -> None:
    answer = mesh.rest("GET", f"/v1/web/{TENANT}/default/{greet}/{ref}/")
    assert (answer.status_code, answer.text) == (200, "Hello, world!")
    assert answer.headers["x-version"] == "1"
    assert answer.headers["x-request-id"].startswith("req_")
    record = mesh.rest("GET", f"/activations/{answer.headers['x-code-sous-activation-id']}").json()["activation"]
    assert record["trigger"]["http"] == {"method": "GET", "path": "/"}


@pytest.mark.parametrize("ref", ["live", "1"])
def test_by_the_command_line(mesh: Mesh, greet: str, ref: str) -> None:
    activation = mesh.cs("fn", "invoke", f"{greet}@{ref}", "--event", "-", stdin='{"name": "Ada"}').json
    assert activation["response"]["body"] == HELLO


def test_async_then_wait(mesh: Mesh, greet: str) -> None:
    accepted = mesh.rest(
        "POST",
        f"/namespaces/default/functions/{greet}:invoke",
        json={"ref": "live", "event": {"name": "Ada"}, "mode": "INVOKE_MODE_ASYNC"},
    )
    assert accepted.status_code == 202
    activation = accepted.json()["activation"]
    assert activation["status"] == "ACTIVATION_STATUS_QUEUED"
    waited = mesh.rest("GET", f"/activations/{activation['activation_id']}:wait", params={"timeout": "10s"})
    ended = waited.json()["activation"]
    assert ended["status"] == "ACTIVATION_STATUS_SUCCESS"
    assert ended["response"]["body"] == HELLO
    lines = mesh.rest("GET", f"/activations/{activation['activation_id']}/logs").json()["entries"]
    assert [line["message"] for line in lines] == ["greeting Ada"]
    from_command_line = mesh.cs("fn", "invoke", f"{greet}@live", "--mode", "async").json
    assert from_command_line["status"] == "queued"


def test_create_answers_201_and_the_same_again_200(mesh: Mesh) -> None:
    body = {"function": "by_rest", "description": "made by REST"}
    assert mesh.rest("POST", "/namespaces/default/functions", json=body).status_code == 201
    assert mesh.rest("POST", "/namespaces/default/functions", json=body).status_code == 200
    other = mesh.rest("POST", "/namespaces/default/functions", json={**body, "description": "other"})
    assert other.status_code == 409
    assert other.json()["details"][0]["reason"] == "CS_CONFLICT_EXISTS"


def test_the_whole_life_of_a_function_by_rest(mesh: Mesh) -> None:
    base = "/namespaces/default/functions/life"
    assert mesh.rest("POST", "/namespaces/default/functions", json={"function": "life"}).status_code == 201
    files = {
        "manifest.json": base64.b64encode(b'{"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"]}}').decode(),
        "index.js": base64.b64encode(GREET.encode()).decode(),
    }
    draft = mesh.rest("PUT", f"{base}/draft", json={"files": files}).json()["draft"]
    published = mesh.rest("POST", f"{base}/versions", json={"draft_id": draft["draft_id"], "alias": "live"})
    assert published.status_code == 201
    assert published.json()["version"]["version"] == 1
    assert mesh.rest("GET", f"{base}/versions/1").json()["version"]["bundle_sha256"] == draft["bundle_sha256"]
    assert len(mesh.rest("GET", f"{base}/versions").json()["versions"]) == 1
    assert mesh.rest("PUT", f"{base}/aliases/next", json={"version": 1}).status_code == 200
    names = [alias["alias"] for alias in mesh.rest("GET", f"{base}/aliases").json()["aliases"]]
    assert names == ["live", "next"]
    assert mesh.rest("DELETE", f"{base}/aliases/next").status_code == 200
    assert mesh.rest("POST", f"{base}/aliases/live:rollback", json={}).status_code == 409
    assert mesh.rest("DELETE", base).json()["function"]["state"] == "FUNCTION_STATE_DELETED"
    assert mesh.rest("POST", f"{base}:undelete", json={}).json()["function"]["state"] == "FUNCTION_STATE_ACTIVE"


def test_query_parameters_with_the_names_of_fields_reach_the_function_and_change_nothing_else(
    mesh: Mesh, echo: str
) -> None:
    evil = "tenant=t_evil99&function=f&ref=1&namespace=other&body=x&proxy_path=y"
    event = mesh.rest("GET", f"/v1/web/{TENANT}/default/{echo}/live/a?{evil}").json()
    assert event["rawQueryString"] == evil
    assert event["queryStringParameters"] == dict(pair.split("=") for pair in evil.split("&"))
    assert event["rawPath"] == "/a"
    listed = mesh.rest("GET", f"/namespaces/default/functions?page_size=500&{evil}")
    assert echo in [function["function"] for function in listed.json()["functions"]]
    invoked = mesh.rest("POST", f"/namespaces/default/functions/{echo}:invoke?{evil}", json={"ref": "live"})
    assert (invoked.status_code, invoked.json()["activation"]["function"]["function"]) == (200, echo)
    refused = mesh.rest(
        "POST", f"/namespaces/default/functions/{echo}:invoke?mode=INVOKE_MODE_ASYNC", json={"ref": "live"}
    )
    assert (refused.status_code, refused.json()["message"]) == (400, "this call takes no query parameters")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_any_verb_path_and_body_reach_the_function(mesh: Mesh, echo: str, method: str) -> None:
    path = "/a%2Fb/%C3%A9/c:invoke/..;x/"
    answer = httpx.request(
        method,
        httpx.URL(f"{mesh.url}/v1/web/{TENANT}/default/{echo}/live{path}?q=%20&q=2"),
        headers={
            "authorization": f"Bearer {mesh.admin}",
            "content-type": "text/x-odd",
            "cookie": "a=1; b=2",
            "x-cs-secret": "no",
            "user-agent": "tester/1",
        },
        content=b"\0\xffbody",
        trust_env=False,
    )
    event: dict[str, Any] = answer.json()
    assert event["version"] == "2.0"
    assert event["rawPath"] == path
    assert event["rawQueryString"] == "q=%20&q=2"
    assert event["queryStringParameters"] == {"q": " ,2"}
    assert event["requestContext"]["http"]["method"] == method
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["http"]["protocol"] == "HTTP/1.1"
    assert event["requestContext"]["http"]["userAgent"] == "tester/1"
    assert event["requestContext"]["principal"]["tenant"] == TENANT
    assert event["requestContext"]["requestId"] == answer.headers["x-request-id"]
    assert base64.b64decode(event["body"]) == b"\0\xffbody"
    assert event["isBase64Encoded"] is True
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"]["content-type"] == "text/x-odd"
    assert event["headers"]["host"] == mesh.address
    assert not {"authorization", "cookie"} & set(event["headers"])
    assert [name for name in event["headers"] if name.startswith(("x-cs-", "x-envoy-", "grpc-", ":"))] == []


def test_status_headers_cookies_and_bytes_of_a_function_reach_the_caller(mesh: Mesh) -> None:
    mesh.deploy(
        "teapot",
        """export default () => ({ statusCode: 418, headers: { "X-Kind": "pot", "content-type": "image/x" },
             cookies: ["a=1; Path=/", "b=2"], body: "AP8=", isBase64Encoded: true })""",
    )
    answer = mesh.rest("GET", f"/v1/web/{TENANT}/default/teapot/live")
    assert answer.status_code == 418
    assert answer.content == b"\0\xff"
    assert answer.headers["x-kind"] == "pot"
    assert answer.headers["content-type"] == "image/x"
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


def test_the_command_line_prints_the_status_then_the_body(mesh: Mesh) -> None:
    mesh.deploy("picky", "export default (e) => ({ statusCode: e.rawPath === '/in' ? 201 : 422, body: 'said' })")
    assert mesh.cs("http", "invoke", "default/picky/live/in", "-X", "POST", "-d", "x").out == "status=201\nsaid\n"
    assert mesh.cs("http", "invoke", "default/picky/live/out", expect=1).out == "status=422\nsaid\n"


def test_an_idempotency_key_meets_the_first_activation(mesh: Mesh) -> None:
    mesh.deploy("rolls", "export default () => ({ statusCode: 200, body: String(Math.random()) })")
    path, key = "/namespaces/default/functions/rolls:invoke", {"idempotency-key": "order-17"}
    first = mesh.rest("POST", path, json={"ref": "live", "event": 1}, headers=key).json()["activation"]
    again = mesh.rest("POST", path, json={"ref": "live", "event": 1}, headers=key).json()["activation"]
    assert (again["activation_id"], again["response"]) == (first["activation_id"], first["response"])
    other = mesh.rest("POST", path, json={"ref": "live", "event": 2}, headers=key)
    assert other.status_code == 409
    assert other.json()["details"][0]["reason"] == "CS_CONFLICT_IDEMPOTENCY"


def test_kv_is_kept_between_activations(mesh: Mesh) -> None:
    manifest = {
        "runtime": "cs-js",
        "capabilities": {"kv": {"prefixes": ["count/"], "operations": ["KV_OPERATION_INCR"]}},
        "config": {"invokeHttpRoles": ["admin"]},
    }
    mesh.deploy_bundle("counter", "export default async () => ({ n: await cs.kv.incr('count/a', 1) })", manifest)
    seen = [mesh.cs("fn", "invoke", "counter@live").json["response"]["body"] for _ in range(2)]
    assert seen == ['{"n":1}', '{"n":2}']
    denied = manifest | {"capabilities": {}}
    mesh.deploy_bundle("denied", "export default async () => cs.kv.incr('count/a', 1)", denied)
    error = mesh.cs("fn", "invoke", "denied@live").json["error"]
    assert error["reason"] == "CS_RUNTIME_CAPABILITY_DENIED"


def test_six_mebibytes_go_through_and_a_byte_more_is_refused(mesh: Mesh) -> None:
    mesh.deploy("sized", "export default (e) => ({ statusCode: 200, body: String(e.body.length) })", timeout="20s")
    full = b"\0" * (6 * 1024 * 1024)
    path = f"/v1/web/{TENANT}/default/sized/live"
    assert mesh.rest("POST", path, content=full).text == str(len(full) // 3 * 4)
    refused = mesh.rest("POST", path, content=full + b"\0")
    assert refused.status_code == 413
    assert refused.json()["details"][0]["reason"] == "CS_VALIDATION_TOO_LARGE"


def test_headers_over_64_kib_are_refused(mesh: Mesh, echo: str) -> None:
    path = f"/v1/web/{TENANT}/default/{echo}/live"
    large = {f"x-part-{number}": "a" * 7000 for number in range(9)}
    assert mesh.rest("GET", path, headers={**large, "x-more": "a" * 5000}).status_code == 413
    assert mesh.rest("GET", path, headers={"x-huge": "a" * 90_000}).status_code == 431
    assert mesh.rest("GET", path, headers={"x-fine": "a" * 50_000}).status_code == 200


def test_reflection_and_health_answer_off_the_shelf_clients(mesh: Mesh, greet: str) -> None:
    request = json.dumps({"tenant": TENANT, "namespace": "default", "function": greet, "ref": "live"})
    invoked = _buf_curl(mesh, f"{mesh.url}/codesous.gateway.v1.InvocationService/Invoke", request)
    assert invoked["activation"]["status"] == "ACTIVATION_STATUS_SUCCESS"
    listed = _buf_curl(
        mesh,
        f"{mesh.url}/codesous.control.v1.FunctionService/ListFunctions",
        json.dumps({"tenant": TENANT, "namespace": "default"}),
    )
    assert listed["functions"]
    assert _buf_curl(mesh, f"{mesh.url}/grpc.health.v1.Health/Check", "{}") == {"status": "SERVING"}


@pytest.mark.parametrize(
    "service", ["cs-control", "cs-http-gateway", "cs-scheduler", "cs-cadence-poller", "cs-invoker-pool"]
)
def test_reflection_health_and_administration_of_each_service(mesh: Mesh, service: str) -> None:
    base = f"http://127.0.0.1:{mesh.ports[service]}"
    assert _buf_curl(mesh, f"{base}/grpc.health.v1.Health/Check", "{}") == {"status": "SERVING"}
    info = _buf_curl(mesh, f"{base}/codesous.admin.v1.AdminService/GetInfo", "{}")["info"]
    assert info["service"] == service
    ready = _buf_curl(mesh, f"{base}/codesous.admin.v1.AdminService/GetReadiness", "{}")
    assert ready["ready"] is True
    assert "store" in [check["name"] for check in ready["checks"]]


def test_administration_is_not_on_the_public_port(mesh: Mesh) -> None:
    with grpc.insecure_channel(mesh.address) as channel:
        call = channel.unary_unary("/codesous.admin.v1.AdminService/GetInfo")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=(("authorization", f"Bearer {mesh.admin}"),))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def _buf_curl(mesh: Mesh, url: str, data: str) -> Any:
    options = ["--protocol", "grpc", "--http2-prior-knowledge", "-H", f"authorization: Bearer {mesh.admin}"]
    done = subprocess.run(
        [BIN / "buf", "curl", *options, "-d", data, url],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=mesh.home,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
