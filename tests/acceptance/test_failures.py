"""What goes wrong, and how it is told: the function's fault, the caller's, nobody's."""

from __future__ import annotations

import base64
import json

import grpc
import httpx
import pytest
from codesous.gateway.v1 import invocation_service_pb2

from tests.acceptance.conftest import OTHER_TENANT, TENANT, Mesh, Stubs


def reason_of(answer: httpx.Response) -> str:
    reason: str = answer.json()["details"][0]["reason"]
    return reason


def test_a_function_that_throws(mesh: Mesh) -> None:
    mesh.deploy("throws", "export default () => { throw new TypeError('not like this'); }")
    activation = mesh.cs("fn", "invoke", "throws@live").json
    assert activation["status"] == "error"
    assert activation["error"]["reason"] == "CS_RUNTIME_EXCEPTION"
    assert (activation["error"]["type"], activation["error"]["message"]) == ("TypeError", "not like this")
    assert "index.js:1" in activation["error"]["stack"]
    assert mesh.cs("fn", "invoke", "throws@live", "--fail", expect=3).json["status"] == "error"
    page = mesh.rest("GET", f"/v1/web/{TENANT}/default/throws/live")
    assert (page.status_code, reason_of(page)) == (500, "CS_RUNTIME_EXCEPTION")
    assert page.headers["x-code-sous-activation-id"] == page.json()["details"][0]["metadata"]["activation_id"]


def test_a_syntax_error_is_a_warning_at_upload_and_an_error_at_run_time(mesh: Mesh) -> None:
    folder = mesh.home / "broken"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"]}}')
    (folder / "index.js").write_text("export default function () {\n  let a = ;\n}\n")
    deployed = mesh.cs("fn", "deploy", "--path", str(folder), "--alias", "live").json
    warning = deployed["warnings"][0]
    assert (warning["file"], warning["line"]) == ("index.js", 2)
    assert warning["column"] > 0
    activation = mesh.cs("fn", "invoke", "broken@live").json
    assert (activation["status"], activation["error"]["type"]) == ("error", "SyntaxError")
    assert mesh.cs("fn", "test", "--path", str(folder), expect=3).json["error"]["type"] == "SyntaxError"


def test_an_endless_loop_with_a_limit_of_one_second(mesh: Mesh) -> None:
    mesh.deploy("endless", "export default () => { for (;;); }", timeout="1s")
    activation = mesh.cs("fn", "invoke", "endless@live").json
    assert (activation["status"], activation["error"]["reason"]) == ("timeout", "CS_RUNTIME_TIMEOUT")
    page = mesh.rest("GET", f"/v1/web/{TENANT}/default/endless/live")
    assert (page.status_code, reason_of(page)) == (504, "CS_RUNTIME_TIMEOUT")
    # The pool is whole again.
    mesh.deploy("after_endless", "export default () => 'fine'")
    assert mesh.cs("fn", "invoke", "after_endless@live").json["status"] == "success"


def test_a_function_over_its_memory_limit(mesh: Mesh) -> None:
    mesh.deploy(
        "hungry", "export default () => { const a = []; for (;;) a.push(new Array(100000).fill(1)); }", memoryMb=16
    )
    activation = mesh.cs("fn", "invoke", "hungry@live").json
    assert (activation["status"], activation["error"]["reason"]) == ("error", "CS_RUNTIME_MEMORY_LIMIT")


def test_a_role_that_is_missing_is_refused_an_admin_too(mesh: Mesh) -> None:
    mesh.deploy("guarded", "export default () => 'in'", invokeHttpRoles=["billing"])
    path = "/namespaces/default/functions/guarded:invoke"
    refused = mesh.rest("POST", path, json={"ref": "live"})
    assert (refused.status_code, reason_of(refused)) == (403, "CS_AUTHZ_ROLE_MISSING")
    assert mesh.cs("fn", "invoke", "guarded@live", expect=1).error["reason"] == "CS_AUTHZ_ROLE_MISSING"
    let_in = mesh.rest("POST", path, json={"ref": "live"}, token=mesh.token(TENANT, "billing"))
    assert let_in.status_code == 200
    # Nobody is on an empty list.
    mesh.deploy("closed", "export default () => 'in'", invokeHttpRoles=[])
    assert mesh.rest("GET", f"/v1/web/{TENANT}/default/closed/live").status_code == 403


def test_a_role_without_the_action_is_refused(mesh: Mesh) -> None:
    viewer = mesh.token(TENANT, "viewer")
    assert mesh.rest("GET", "/namespaces/default/functions", token=viewer).status_code == 200
    refused = mesh.rest("POST", "/namespaces/default/functions", json={"function": "sneaky"}, token=viewer)
    assert (refused.status_code, reason_of(refused)) == (403, "CS_AUTHZ_ACTION_DENIED")
    assert mesh.rest("GET", "/namespaces/default/functions/sneaky").status_code == 404


def test_another_tenants_token(mesh: Mesh, greet: str) -> None:
    other = mesh.token(OTHER_TENANT, "admin")
    for method, path, body in (
        ("GET", f"/namespaces/default/functions/{greet}", None),
        ("POST", f"/namespaces/default/functions/{greet}:invoke", {"ref": "live"}),
        ("DELETE", f"/namespaces/default/functions/{greet}", None),
    ):
        refused = mesh.rest(method, path, token=other, json=body)
        assert (refused.status_code, reason_of(refused)) == (403, "CS_AUTHZ_TENANT_MISMATCH")
    page = mesh.rest("GET", f"/v1/web/{TENANT}/default/{greet}/live", token=other)
    assert (page.status_code, reason_of(page)) == (403, "CS_AUTHZ_TENANT_MISMATCH")
    # The other tenant has a namespace of the same name, and nothing in it.
    path = f"/v1/tenants/{OTHER_TENANT}/namespaces/default/functions"
    assert mesh.rest("GET", path, token=other).json()["functions"] == []


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "CS_AUTHN_TOKEN_MISSING"),
        ("Basic YTpi", "CS_AUTHN_TOKEN_INVALID"),
        ("Bearer", "CS_AUTHN_TOKEN_INVALID"),
        ("Bearer not.a.token", "CS_AUTHN_TOKEN_INVALID"),
        ("Bearer eyJhbGciOiJub25lIn0.eyJ0aWQiOiJ0X2FjY2VwdDEifQ.", "CS_AUTHN_TOKEN_INVALID"),
    ],
)
def test_a_token_that_is_missing_or_malformed(mesh: Mesh, header: str | None, reason: str) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = httpx.get(f"{mesh.url}/v1/tenants/{TENANT}/namespaces/default/functions", headers=headers, trust_env=False)
    assert (answer.status_code, reason_of(answer)) == (401, reason)


def test_bad_requests_name_every_field_and_rule(mesh: Mesh) -> None:
    bad = mesh.rest("POST", "/namespaces/X/functions", json={"function": "Nope!", "description": "a\nb"})
    assert (bad.status_code, reason_of(bad)) == (400, "CS_VALIDATION_FIELD")
    violations = next(detail for detail in bad.json()["details"] if "field_violations" in detail)["field_violations"]
    assert {violation["field"] for violation in violations} == {"namespace", "function", "description"}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"ref":', 400), (b"[1]", 400), (b'{"ref": 7}', 400), (b'{"ref": {}}', 400), (b"\xff", 400), (b"", 400)],
)
def test_bodies_that_are_not_json_of_the_request(mesh: Mesh, greet: str, body: bytes, status: int) -> None:
    answer = mesh.rest("POST", f"/namespaces/default/functions/{greet}:invoke", content=body)
    assert answer.status_code == status
    assert reason_of(answer) in ("CS_VALIDATION_MALFORMED", "CS_VALIDATION_FIELD")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "manifest.json"),
        ('{"runtime": "cs-js", "nope": 1}', "nope"),
        ('{"runtime": "cobol"}', "runtime"),
        ('{"runtime": "cs-js", "entry": "other.js"}', "entry"),
        ('{"runtime": "cs-js", "entry": "../index.js"}', "entry"),
        ('{"runtime": "cs-js", "config": {"memoryMb": 1}}', "memory_mb"),
        ('{"runtime": "cs-js", "config": {"timeout": "31s"}}', "timeout"),
    ],
)
def test_bad_manifests(mesh: Mesh, greet: str, manifest: str, message: str) -> None:
    files = {"manifest.json": base64.b64encode(manifest.encode()).decode(), "index.js": ""}
    answer = mesh.rest("PUT", f"/namespaces/default/functions/{greet}/draft", json={"files": files})
    assert (answer.status_code, reason_of(answer)) == (400, "CS_VALIDATION_MANIFEST")
    assert message in json.dumps(answer.json())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/namespaces/default/functions/missing", None, 404, "CS_NOT_FOUND_FUNCTION"),
        ("GET", "/namespaces/default/functions/greet/versions/99", None, 404, "CS_NOT_FOUND_VERSION"),
        ("POST", "/namespaces/default/functions/greet:invoke", {"ref": "gone"}, 404, "CS_NOT_FOUND_ALIAS"),
        ("POST", "/namespaces/default/functions/greet:invoke", {"ref": "99"}, 404, "CS_NOT_FOUND_VERSION"),
        ("POST", "/namespaces/default/functions/greet:invoke", {"ref": "-1"}, 400, "CS_VALIDATION_FIELD"),
        (
            "POST",
            "/namespaces/default/functions/greet/versions",
            {"draft_id": "drf_01ARZ3NDEKTSV4RRFFQ69G5FAV"},
            404,
            "CS_NOT_FOUND_DRAFT",
        ),
        ("POST", "/namespaces/default/functions/greet/versions", {"draft_id": "x"}, 400, "CS_VALIDATION_FIELD"),
        (
            "GET",
            "/activations/00000000-0000-4000-8000-000000000000",
            None,
            404,
            "CS_NOT_FOUND_ACTIVATION",
        ),
        ("GET", "/activations/nope", None, 400, "CS_VALIDATION_FIELD"),
        ("GET", "/namespaces/default/functions?page_token=AAAA", None, 400, "CS_VALIDATION_PAGE_TOKEN"),
        ("GET", "/namespaces/default/functions?nope=1", None, 400, "CS_VALIDATION_MALFORMED"),
        ("GET", "/nothing/here", None, 404, "CS_NOT_FOUND_METHOD"),
    ],
)
def test_what_is_not_there_is_told_by_name(
    mesh: Mesh, greet: str, method: str, path: str, body: dict[str, str] | None, status: int, reason: str
) -> None:
    answer = mesh.rest(method, path, json=body)
    assert (answer.status_code, reason_of(answer)) == (status, reason)


def test_a_bad_response_is_told_with_its_field_and_hurts_nobody(mesh: Mesh) -> None:
    mesh.deploy(
        "splits",
        r"""export default () => ({ statusCode: 200, headers: { "x-a": "b\r\nset-cookie: c=1" }, body: "x" })""",
    )
    answer = mesh.rest("GET", f"/v1/web/{TENANT}/default/splits/live")
    assert (answer.status_code, reason_of(answer)) == (502, "CS_RUNTIME_BAD_RESPONSE")
    assert "x-a" in answer.json()["message"]
    assert "set-cookie" not in answer.headers
    mesh.deploy(
        "hops", """export default () => ({ statusCode: 200, headers: { "Transfer-Encoding": "chunked" }, body: "x" })"""
    )
    answer = mesh.rest("GET", f"/v1/web/{TENANT}/default/hops/live")
    assert (answer.status_code, reason_of(answer)) == (502, "CS_RUNTIME_BAD_RESPONSE")


def test_errors_by_grpc_carry_code_reason_and_request_id(mesh: Mesh, stubs: Stubs) -> None:
    request = invocation_service_pb2.InvokeRequest(tenant=TENANT, namespace="default", function="missing", ref="live")
    with pytest.raises(grpc.RpcError) as caught:
        stubs.invocations.Invoke(request, metadata=stubs.metadata)
    error = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    assert trailers["x-request-id"].startswith("req_")
    assert b"CS_NOT_FOUND_FUNCTION" in trailers["grpc-status-details-bin"]


def test_the_command_line_without_a_mesh(mesh: Mesh) -> None:
    away = mesh.cs("fn", "list", expect=2, CODE_SOUS_API_URL="http://127.0.0.1:9")
    assert away.error["reason"] == "CS_CLI_UNREACHABLE"
