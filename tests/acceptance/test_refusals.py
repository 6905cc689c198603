"""Every RPC and every REST path of the contracts, called by everybody who may not: nobody gets in, all are told why.

Nothing here is listed by hand but the kinds of callers: an RPC that is new in the contracts is called the day that it
is written, and one that no process serves fails the test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import grpc
import httpx
import pytest
from codesous.type.v1.error_reason_pb2 import ErrorReason
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from cs_core.errors import AuthorizationError
from cs_core.iam.dev_issuer import DevIssuer
from cs_core.iam.interceptors import Authorization
from cs_core.iam.policy import Policy
from cs_core.rpc.context import RequestContext
from cs_core.rpc.status import TABLE
from tests.acceptance.conftest import OTHER_TENANT, TENANT, Mesh
from tests.support.contracts import Rpc, all_rpcs

RPCS = all_rpcs()
ACTIONS = sorted({rpc.rule.action for rpc in RPCS})
# Not of the contracts, served all the same, and open to everybody on purpose.
OPEN = {
    "grpc.health.v1.Health": "balancers and supervisors ask it; it tells whether a service serves",
    "grpc.reflection.v1alpha.ServerReflection": "clients learn the contracts from it; the contracts are public",
    "grpc.channelz.v1.Channelz": "for whoever is on the internal ports; the public port does not route it",
    "externalscaler.ExternalScaler": "KEDA asks it, without a token; it tells how much waits, and nothing of whom",
}
REACHED = "reached"


@dataclass(frozen=True)
class Caller:
    """A way of not being allowed. `header` makes the authorization header for a call of an RPC; None: no header."""

    name: str
    reason: str
    header: Callable[[DevIssuer, Rpc], str | None]


@cache
def bearer(
    issuer: DevIssuer,
    tenant: str = TENANT,
    *roles: str,
    scopes: tuple[str, ...] = (),
    ttl: timedelta = timedelta(hours=1),
) -> str:
    return f"Bearer {issuer.mint(tenant, roles or ('admin',), scopes=scopes, ttl=ttl)}"


def all_but(rpc: Rpc) -> tuple[str, ...]:
    return tuple(action for action in ACTIONS if action != rpc.rule.action)


def tampered(issuer: DevIssuer) -> str:
    head, body, signature = bearer(issuer).split(".")
    return f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


CALLERS = (
    Caller("no token", "CS_AUTHN_TOKEN_MISSING", lambda issuer, rpc: None),
    Caller("malformed", "CS_AUTHN_TOKEN_INVALID", lambda issuer, rpc: "Bearer not-a-token"),
    Caller("no bearer", "CS_AUTHN_TOKEN_INVALID", lambda issuer, rpc: "Basic dXNlcjpwYXNz"),
    Caller("wrongly signed", "CS_AUTHN_TOKEN_INVALID", lambda issuer, rpc: tampered(issuer)),
    Caller("expired", "CS_AUTHN_TOKEN_EXPIRED", lambda issuer, rpc: bearer(issuer, ttl=timedelta(hours=-1))),
    Caller("other tenant", "CS_AUTHZ_TENANT_MISMATCH", lambda issuer, rpc: bearer(issuer, OTHER_TENANT)),
    Caller("every action but this", "CS_AUTHZ_ACTION_DENIED", lambda issuer, rpc: bearer(issuer, scopes=all_but(rpc))),
    Caller(
        "no action at all",
        "CS_AUTHZ_ACTION_DENIED",
        lambda issuer, rpc: bearer(issuer, TENANT, "nobody", scopes=("cs:nothing:read",)),
    ),
)


@pytest.fixture(scope="module")
def issuer(mesh: Mesh) -> DevIssuer:
    return DevIssuer(mesh.data_dir / "identity")


async def reason_by_grpc(channel: grpc.aio.Channel, rpc: Rpc, header: str | None) -> tuple[str, dict[str, str], str]:
    """What an RPC answers: the reason, its metadata and the text; REACHED when the call was let in."""
    metadata = (("authorization", header),) if header is not None else ()
    serialize = rpc.request(TENANT).SerializeToString
    make = channel.unary_stream if rpc.method.server_streaming else channel.unary_unary
    call: Any = make(rpc.path, lambda _: serialize(), rpc.answer.FromString)(None, metadata=metadata, timeout=5)
    try:
        if rpc.method.server_streaming:
            async for _ in call:
                call.cancel()
                return REACHED, {}, ""
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return REACHED, {}, ""
        return reason_of(error)
    return REACHED, {}, ""


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str], str]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        return f"untyped {error.code().name}", {}, error.details() or ""
    assert error.code() == TABLE[info.reason].code, info.reason
    assert info.domain == "code-sous"
    return info.reason, dict(info.metadata), error.details() or ""


async def homes(mesh: Mesh) -> dict[str, dict[str, grpc.aio.Channel]]:
    """By service of the contracts, the processes that say that they serve it."""
    found: dict[str, dict[str, grpc.aio.Channel]] = {rpc.service: {} for rpc in RPCS}
    for process, port in mesh.ports.items():
        if not process.startswith("cs-"):
            continue
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service, places in found.items():
            try:
                await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND, error
            else:
                places[process] = channel
    return found


def wrong(caller: Caller, rpc: Rpc, reason: str, metadata: dict[str, str], text: str) -> str:
    """What is wrong with a refusal; empty when it is as it must be."""
    if reason != caller.reason:
        return f"{reason} instead of {caller.reason}"
    if reason != "CS_AUTHZ_ACTION_DENIED":
        return ""
    return "" if metadata.get("action") == rpc.rule.action and rpc.rule.action in text else "the action is not named"


async def test_every_rpc_refuses_who_may_not_and_says_why(mesh: Mesh, issuer: DevIssuer) -> None:
    places = await homes(mesh)
    assert [service for service, processes in places.items() if not processes] == []
    scoped = [rpc for rpc in RPCS if rpc.rule.tenant_scoped]
    refused, failures = 0, []
    for rpc in scoped:
        for process, channel in places[rpc.service].items():
            for caller in CALLERS:
                answer = await reason_by_grpc(channel, rpc, caller.header(issuer, rpc))
                complaint = wrong(caller, rpc, *answer)
                refused += not complaint
                failures += [f"{process} {rpc.path} by {caller.name}: {complaint}"] if complaint else []
    assert failures == []
    assert refused >= len(scoped) * len(CALLERS)
    print(f"gRPC: {refused} calls of {len(scoped)} RPCs by {len(CALLERS)} kinds of callers, all refused as typed")


async def test_the_same_rpcs_let_in_who_may(mesh: Mesh, issuer: DevIssuer) -> None:
    """The control: the very same requests, refused above, get past the door with the one action that they need."""
    places = await homes(mesh)

    async def let_in(rpc: Rpc) -> str:
        channel = next(iter(places[rpc.service].values()))
        header = bearer(issuer, scopes=(rpc.rule.action,))
        reason, _, _ = await reason_by_grpc(channel, rpc, header)
        return f"{rpc.path}: {reason}" if reason.startswith(("CS_AUTH", "untyped")) else ""

    answers = await asyncio.gather(*(let_in(rpc) for rpc in RPCS if rpc.rule.tenant_scoped))
    assert [answer for answer in answers if answer] == []


async def test_every_rest_path_refuses_who_may_not_and_says_why(mesh: Mesh, issuer: DevIssuer) -> None:
    refused, failures, paths = 0, [], 0
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=20) as client:
        for rpc in RPCS:
            for call in rpc.rest_calls(TENANT):
                paths += 1
                assert rpc.rule.tenant_scoped, f"{rpc.path} is of the installation and has a public path"
                for caller in CALLERS:
                    header = caller.header(issuer, rpc)
                    headers = {"content-type": "application/json"} if call.body is not None else {}
                    headers |= {"authorization": header} if header is not None else {}
                    answer = await client.request(call.verb, call.path, content=call.body, headers=headers)
                    complaint = wrong(caller, rpc, *reason_by_http(answer))
                    refused += not complaint
                    failures += [f"{call.verb} {call.path} by {caller.name}: {complaint}"] if complaint else []
    assert failures == []
    assert paths >= sum(rpc.rule.tenant_scoped for rpc in RPCS) * 0.9
    print(f"REST: {refused} requests to {paths} paths by {len(CALLERS)} kinds of callers, all refused as typed")


def reason_by_http(answer: httpx.Response) -> tuple[str, dict[str, str], str]:
    try:
        document = answer.json()
        (info,) = (detail for detail in document["details"] if detail["@type"].endswith("google.rpc.ErrorInfo"))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return f"untyped {answer.status_code} {answer.text[:80]}", {}, ""
    reason = info["reason"]
    assert answer.status_code == TABLE[reason].http, (reason, answer.status_code)
    return reason, info.get("metadata", {}), document["message"]


async def test_every_rest_path_lets_in_who_may(mesh: Mesh, issuer: DevIssuer) -> None:
    failures = []
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=3) as client:
        for rpc in RPCS:
            for call in rpc.rest_calls(TENANT):
                headers = {"authorization": bearer(issuer, scopes=(rpc.rule.action,))}
                headers |= {"content-type": "application/json"} if call.body is not None else {}
                try:
                    async with client.stream(call.verb, call.path, content=call.body, headers=headers) as answer:
                        if answer.status_code < 400:
                            continue
                        await answer.aread()
                        reason, _, _ = reason_by_http(answer)
                except httpx.ReadTimeout:
                    continue  # it waits for something: it was let in
                if reason.startswith(("CS_AUTH", "untyped", "CS_NOT_FOUND_METHOD")):
                    failures.append(f"{call.verb} {call.path}: {reason}")
    assert failures == []


async def test_what_concerns_the_installation_is_refused_to_tenants_and_strangers(
    mesh: Mesh, issuer: DevIssuer
) -> None:
    installation = [rpc for rpc in RPCS if not rpc.rule.tenant_scoped]
    assert installation
    async with grpc.aio.insecure_channel(mesh.address) as public:
        for rpc in installation:
            reason, _, _ = await reason_by_grpc(public, rpc, bearer(issuer))
            assert reason.removeprefix("untyped ") in ("UNIMPLEMENTED", "CS_NOT_FOUND_METHOD"), (rpc.path, reason)
    door = Authorization(Policy({"admin": ["cs:*"]}))
    for rpc in installation:
        for stranger in ("ipv4:10.0.0.9:4711", "ipv6:[2001:db8::1]:4711", "ipv4:192.168.127.0:1", "", "unknown"):
            with pytest.raises(AuthorizationError) as caught:
                door.check(RequestContext(rpc.path, (), stranger, rpc.rule), rpc.request(TENANT))
            assert caught.value.reason == "CS_AUTHZ_ACTION_DENIED"
            assert caught.value.metadata == {"action": rpc.rule.action}
        door.check(RequestContext(rpc.path, (), "ipv4:127.0.0.1:4711", rpc.rule), rpc.request(TENANT))


async def test_what_is_open_is_known_and_nothing_else_is(mesh: Mesh) -> None:
    """What a process lists by reflection is of the contracts, or open for a reason that stands here."""
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    declared = {rpc.service for rpc in RPCS}
    for process, port in mesh.ports.items():
        if not process.startswith("cs-"):
            continue
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            answer = await call.read()
            listed = {service.name for service in answer.list_services_response.service}
        assert listed - declared - set(OPEN) == set(), process


def test_every_reason_that_the_callers_expect_is_one_of_the_contracts() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum of protobuf
    assert {caller.reason for caller in CALLERS} <= names
