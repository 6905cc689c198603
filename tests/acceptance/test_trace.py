"""One trace from the caller through gateway, queue, invoker and cell, and what the record tells of where time went."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import grpc
from codesous.gateway.v1 import invocation_service_pb2

from tests.acceptance.conftest import TENANT, Mesh, Stubs
from tests.support.collector import Collector
from tests.support.waiting import wait_until

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
COUNTS = """
export default async (event, ctx) => {
  const count = await cs.kv.incr("traced/n", 1);
  return { statusCode: 200, body: JSON.stringify({ traceparent: ctx.traceparent, count }) };
};
"""
KV = {"kv": {"prefixes": ["traced/"], "operations": ["KV_OPERATION_INCR"]}}
PATH = "/namespaces/default/functions/traced:invoke"


def deploy(mesh: Mesh) -> None:
    manifest = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"]}, "capabilities": KV}
    mesh.deploy_bundle("traced", COUNTS, manifest)


def test_a_callers_trace_is_in_the_answer_the_handler_the_record_and_the_logs(mesh: Mesh, stubs: Stubs) -> None:
    deploy(mesh)
    answer = mesh.rest("POST", PATH, json={"ref": "live"}, headers={"traceparent": TRACEPARENT, "tracestate": "a=1"})
    assert answer.headers["traceresponse"].split("-")[1] == TRACE_ID
    activation = answer.json()["activation"]
    assert activation["trace_id"] == TRACE_ID
    assert json.loads(activation["response"]["body"])["traceparent"].split("-")[1] == TRACE_ID

    web = mesh.rest("POST", f"/v1/web/{TENANT}/default/traced/live", headers={"traceparent": TRACEPARENT})
    assert json.loads(web.text)["traceparent"].split("-")[1] == TRACE_ID

    request = invocation_service_pb2.InvokeRequest(tenant=TENANT, namespace="default", function="traced", ref="live")
    answered, call = stubs.invocations.Invoke.with_call(
        request, metadata=(*stubs.metadata, ("traceparent", TRACEPARENT))
    )
    assert answered.activation.trace_id == TRACE_ID
    assert dict(call.initial_metadata())["traceresponse"].split("-")[1] == TRACE_ID

    lines = [json.loads(line) for line in mesh.cs("logs", "cs-http-gateway", "--lines", "1000000").out.splitlines()]
    ours = [line for line in lines if line.get("trace_id") == TRACE_ID and line["event"] == "call"]
    assert activation["request_id"] in {line["request_id"] for line in ours}
    assert all(line["tenant"] == TENANT for line in ours)


async def test_what_the_invoker_logs_names_request_tenant_function_activation_and_trace(mesh: Mesh) -> None:
    mesh.deploy(
        "given-up",
        'export default () => { throw new Error("no"); };',
        retry={"maxAttempts": 2, "initialBackoff": "0.1s"},
    )
    path = "/namespaces/default/functions/given-up:invoke"
    body = {"ref": "live", "mode": "INVOKE_MODE_ASYNC"}
    activation = mesh.rest("POST", path, json=body, headers={"traceparent": TRACEPARENT}).json()["activation"]
    found: list[dict[str, Any]] = []

    def logged() -> bool:
        lines = mesh.cs("logs", "cs-invoker-pool", "--lines", "1000000").out.splitlines()
        found[:] = [line for line in map(json.loads, lines) if line.get("activation_id") == activation["activation_id"]]
        return bool(found)

    await wait_until(logged)
    line = found[0]
    assert (line["request_id"], line["tenant"], line["function"], line["trace_id"]) == (
        activation["request_id"],
        TENANT,
        "given-up",
        TRACE_ID,
    )


def test_without_a_valid_trace_one_is_begun(mesh: Mesh, greet: str) -> None:
    path = f"/namespaces/default/functions/{greet}:invoke"
    seen = set()
    for headers in ({}, {"traceparent": "nonsense"}, {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}):
        answer = mesh.rest("POST", path, json={"ref": "live"}, headers=headers)
        assert answer.status_code == 200
        trace_id = answer.json()["activation"]["trace_id"]
        assert answer.headers["traceresponse"].split("-")[1] == trace_id
        seen.add(trace_id)
    assert len(seen) == 3
    assert "0" * 32 not in seen


def test_a_refusal_names_its_trace_too(mesh: Mesh, stubs: Stubs) -> None:
    request = invocation_service_pb2.InvokeRequest(tenant=TENANT, namespace="default", function="not-there", ref="live")
    try:
        stubs.invocations.Invoke(request, metadata=(*stubs.metadata, ("traceparent", TRACEPARENT)))
    except grpc.RpcError as error:
        found = {**dict(error.initial_metadata()), **dict(error.trailing_metadata())}  # type: ignore[attr-defined]
    assert found["traceresponse"].split("-")[1] == TRACE_ID


def test_cs_trace_tells_where_the_time_went(mesh: Mesh) -> None:
    deploy(mesh)
    activation = mesh.rest("POST", PATH, json={"ref": "live"}).json()["activation"]
    told = mesh.cs("trace", activation["activation_id"]).json
    assert (told["trace_id"], told["status"]) == (activation["trace_id"], "success")
    steps = [step["step"] for step in told["steps"]]
    assert steps == ["queued", "claimed", "run", "cs.kv.incr", "finished", "delivered"]
    run, call = told["steps"][2], told["steps"][3]
    assert 0 < call["ms"] <= run["ms"]
    assert run["at_ms"] <= call["at_ms"]
    assert mesh.cs("trace", "0b9ff0a0-4b8b-4f6c-9c55-000000000000", expect=1).error["reason"].startswith("CS_NOT_FOUND")


async def test_the_collector_has_one_trace_from_the_call_to_the_host_call(mesh: Mesh, collector: Collector) -> None:
    deploy(mesh)
    trace_id, caller = os.urandom(16).hex(), "00f067aa0ba902b7"
    answer = mesh.rest("POST", PATH, json={"ref": "live"}, headers={"traceparent": f"00-{trace_id}-{caller}-01"})
    assert answer.json()["activation"]["trace_id"] == trace_id
    await wait_until(lambda: len(collector.of(trace_id)) >= 4)
    by_name = {told.span.name: told for told in collector.of(trace_id)}
    call, processing, run, host_call = (
        by_name[name]
        for name in ("codesous.gateway.v1.InvocationService/Invoke", "cs.invoke process", "run", "cs.kv.incr")
    )
    assert [told.service for told in (call, processing, run, host_call)] == [
        "cs-http-gateway",
        *["cs-invoker-pool"] * 3,
    ]
    assert [call.parent, processing.parent, run.parent, host_call.parent] == [caller, call.id, processing.id, run.id]
    assert answer.headers["traceresponse"] == f"00-{trace_id}-{call.id}-01"
    handler = json.loads(answer.json()["activation"]["response"]["body"])["traceparent"]
    assert handler == f"00-{trace_id}-{processing.id}-01"
    for told in (call, processing, run, host_call):
        assert 0 < told.span.start_time_unix_nano <= told.span.end_time_unix_nano
    assert run.span.end_time_unix_nano <= processing.span.end_time_unix_nano


def test_what_no_caller_records_is_not_sent(mesh: Mesh, collector: Collector, greet: str) -> None:
    unrecorded = os.urandom(16).hex()
    headers = {"traceparent": f"00-{unrecorded}-00f067aa0ba902b7-00"}
    path = f"/namespaces/default/functions/{greet}:invoke"
    assert mesh.rest("POST", path, json={"ref": "live"}, headers=headers).status_code == 200
    begun = mesh.rest("POST", path, json={"ref": "live"}).json()["activation"]["trace_id"]
    recorded = os.urandom(16).hex()
    mesh.rest("POST", path, json={"ref": "live"}, headers={"traceparent": f"00-{recorded}-00f067aa0ba902b7-01"})
    deadline = time.monotonic() + 20
    while not collector.of(recorded):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert collector.of(unrecorded) == collector.of(begun) == []
