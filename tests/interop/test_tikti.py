"""A mesh whose identity is Tikti: people and services sign in there, and the mesh believes its tokens only.

With `CODE_SOUS_INTEROP=1` a real Tikti is installed through the Go module client; where that fails, and
everywhere else, a stand-in serves the same endpoints. Which one it was is printed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from codesous.control.v1 import function_service_pb2 as pb
from codesous.control.v1.function_service_pb2_grpc import (
    FunctionServiceServicer,
    FunctionServiceStub,
    add_FunctionServiceServicer_to_server,
)

from cs_core.rpc.server import Service
from tests.acceptance.conftest import Mesh
from tests.support.real_tikti import NotInstalledError, RealTikti
from tests.support.rpc import serving
from tests.support.tikti import API_KEY, AUDIENCE, Tikti, User

TENANT, OTHER = "t_interop1", "t_interop2"
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
SCOPES = ("cs:access:explain", "cs:function:invoke", "cs:function:read", "role:admin", "role:developer")
JWKS = "/v1/.well-known/jwks.json"
pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("tikti")]


@dataclass(frozen=True)
class Issuer:
    """Tikti, real or not, as HTTP shows it."""

    server: Tikti | RealTikti
    api_key: str
    which: str

    def post(self, path: str, **document: Any) -> httpx.Response:
        headers = {"x-api-key": self.api_key}
        return httpx.post(self.server.url + path, json=document, headers=headers, timeout=20, trust_env=False)

    def identity_token(self) -> str:
        answer = self.post("/v1/accounts/signInWithPassword", email=EMAIL, password=PASSWORD, returnSecureToken=True)
        return str(answer.json()["idToken"])

    def access_token(self, *scopes: str, subject: str = "") -> str:
        answer = self.post(
            "/v1/accounts/token/exchange",
            idToken=self.identity_token(),
            audience=AUDIENCE,
            tenantId=TENANT,
            scopes=list(scopes),
            ttlSeconds=900,
            subject=subject,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["accessToken"])


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    why = "CODE_SOUS_INTEROP is not 1"
    if os.environ.get("CODE_SOUS_INTEROP") == "1":
        real = RealTikti(tmp_path_factory.mktemp("tikti"), TENANT, EMAIL, PASSWORD, SCOPES)
        try:
            real.start()
        except NotInstalledError as error:
            real.close()
            why = str(error)
        else:
            yield Issuer(real, real.api_key, "real")
            real.close()
            return
    stand_in = Tikti()
    stand_in.add(User(EMAIL, PASSWORD, TENANT, "ADMIN", scopes=SCOPES))
    yield Issuer(stand_in, API_KEY, f"stand-in ({why})")
    stand_in.close()


@pytest.fixture(scope="module")
def mesh(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("interop"))
    settings = {
        "CS_IAM__ISSUER": issuer.server.url,
        "CS_IAM__AUDIENCE": AUDIENCE,
        "CS_IAM__JWKS_URL": issuer.server.jwks_url,
        "CS_IAM__ROLE_SCOPE_PREFIX": "role:",
    }
    made.url = made.cs("up", "--detach", "--port", "0", **settings).json["api_url"]
    try:
        yield made
    finally:
        made.cs("down")


def test_somebody_signs_in_deploys_and_calls(mesh: Mesh, issuer: Issuer, record_property: Any) -> None:
    print(f"tikti: {issuer.which}")
    record_property("tikti", issuer.which)
    (mesh.home / "api-key").write_text(issuer.api_key)
    login = ["auth", "login", "--tenant", TENANT, "--api-url", mesh.url, "--tikti-url", issuer.server.url]
    login += ["--api-key-file", str(mesh.home / "api-key"), "--email", EMAIL, "--password-file", "-"]
    assert mesh.cs(*login, "--scope", "role:admin", stdin=PASSWORD).json["renewed_by"] == "tikti"
    may = mesh.cs("auth", "can", "cs:function:publish", "default:function/greet").json
    assert (may["allowed"], may["role"]) == (True, "admin")
    mesh.deploy("greet", "export default (event, ctx) => ctx.principal", invokeHttpRoles=["admin"])
    answer = mesh.cs("fn", "invoke", "greet@live").json
    assert answer["status"] == "success"


def test_a_service_has_a_token_of_its_own_that_does_what_its_scopes_say(mesh: Mesh, issuer: Issuer) -> None:
    token = issuer.access_token("role:developer", "cs:function:read", subject="svc-reader")
    functions = f"/v1/tenants/{TENANT}/namespaces/default/functions"
    assert mesh.rest("GET", functions, token=token).status_code == 200
    refused = mesh.rest("POST", functions, token=token, json={"function": "other"})
    assert (refused.status_code, reason_of(refused)) == (403, "CS_AUTHZ_ACTION_DENIED")
    assert "cs:function:create" in refused.json()["message"]
    # Without a role there is nothing for the scope to narrow.
    bare = issuer.access_token("cs:function:read", subject="svc-bare")
    assert reason_of(mesh.rest("GET", functions, token=bare)) == "CS_AUTHZ_ACTION_DENIED"


def test_what_tikti_did_not_sign_for_us_is_refused(mesh: Mesh, issuer: Issuer) -> None:
    functions = f"/v1/tenants/{TENANT}/namespaces/default/functions"
    good = issuer.access_token("role:admin")
    assert mesh.rest("GET", functions, token=good).status_code == 200
    head, _, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(good.split(".")[1] + "=="))
    other = base64.urlsafe_b64encode(json.dumps({**claims, "tid": OTHER}).encode()).rstrip(b"=").decode()
    for token in (issuer.identity_token(), f"{head}.{other}.{signature}", mesh.token(TENANT, "admin")):
        assert reason_of(mesh.rest("GET", functions, token=token)) == "CS_AUTHN_TOKEN_INVALID"
    elsewhere = mesh.rest("GET", functions.replace(TENANT, OTHER), token=good)
    assert reason_of(elsewhere) == "CS_AUTHZ_TENANT_MISMATCH"


async def test_a_thousand_made_up_key_ids_at_the_public_port_cost_tikti_one_fetch_per_interval(
    mesh: Mesh, issuer: Issuer
) -> None:
    if not isinstance(issuer.server, Tikti):
        pytest.skip("only the stand-in counts what it is asked")
    path = f"/v1/tenants/{TENANT}/namespaces/default/functions"
    good = issuer.access_token("role:admin")
    assert mesh.rest("GET", path, token=good).status_code == 200
    before, started = issuer.server.asked[JWKS], asyncio.get_running_loop().time()
    tail = good.partition(".")[2]
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60, limits=limits) as client:

        async def refused() -> str:
            head = json.dumps({"alg": "RS256", "kid": str(uuid.uuid4())}).encode()
            token = f"{base64.urlsafe_b64encode(head).rstrip(b'=').decode()}.{tail}"
            return reason_of(await client.get(path, headers={"authorization": f"Bearer {token}"}))

        assert set(await asyncio.gather(*(refused() for _ in range(1000)))) == {"CS_AUTHN_TOKEN_INVALID"}
    intervals = 1 + int((asyncio.get_running_loop().time() - started) // 60)
    fetched = issuer.server.asked[JWKS] - before
    print(f"1,000 unknown key ids at the public port: {fetched} fetches in {intervals} interval(s)")
    assert fetched <= intervals


class Echo(FunctionServiceServicer):
    """Answers whoever gets to it."""

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Any) -> pb.GetFunctionResponse:
        return pb.GetFunctionResponse()


async def test_a_server_that_asks_tikti_believes_its_identity_tokens(issuer: Issuer, tmp_path: Path) -> None:
    iam = {
        "mode": "introspection",
        "introspection_style": "lookup",
        "introspection_url": f"{issuer.server.url}/v1/accounts/lookup",
        "introspection_secret": issuer.api_key,
        "role_actions": {"ADMIN": ["cs:*"]},
    }
    service = Service("codesous.control.v1.FunctionService", add_FunctionServiceServicer_to_server, Echo())  # type: ignore[abstract]
    async with serving(tmp_path, [service], settings={"iam": iam}) as served:
        stub: Any = FunctionServiceStub(served.channel)
        request = pb.GetFunctionRequest(tenant=TENANT, namespace="default", function="greet")

        async def call(token: str) -> grpc.StatusCode:
            try:
                await stub.GetFunction(request, metadata=(("authorization", f"Bearer {token}"),))
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        token = await asyncio.to_thread(issuer.identity_token)
        assert await call(token) == grpc.StatusCode.OK
        assert await call(token[:-4] + "AAAA") == grpc.StatusCode.UNAUTHENTICATED


def reason_of(answer: httpx.Response) -> str:
    return str(answer.json()["details"][0]["reason"])
