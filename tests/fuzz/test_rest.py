"""Every REST path and the web endpoint, on odd HTTP through the real Envoy to the real servicers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cs_core.rpc.status import TABLE
from cs_core.telemetry.logs import GRPC_LOGGER, is_worth_a_line
from tests.support.both_planes import both_planes
from tests.support.contracts import all_rpcs
from tests.support.edge import Edge, edge_before
from tests.support.fuzzing import fuzz_calls, share
from tests.support.odd_http import NO_HTTP, OddHttp, exchange
from tests.support.rpc import Served
from tests.support.scale import long_test

pytestmark = pytest.mark.asyncio(loop_scope="module")

RPCS = [rpc for rpc in all_rpcs() if rpc.service.startswith(("codesous.control.", "codesous.gateway."))]
SECONDS, WATCH_SECONDS = 8.0, 0.1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Edge, Served]]:
    async with both_planes(tmp_path_factory.mktemp("rest")) as (served, _), edge_before(served.server.port) as edge:
        yield edge, served


def wrong(answer: tuple[int, bytes] | None, path: str) -> str:
    """What is wrong with an answer; empty for nothing."""
    if answer is None:
        # Nobody owes an answer to bytes that are no HTTP, but to a request.
        return "" if path == NO_HTTP else "closed without an answer"
    status, body = answer
    if status == 0:
        return "" if "/Watch" in path else "no answer in time"
    if status < 400:
        return ""
    try:
        document = json.loads(body)
        (info,) = (each for each in document["details"] if each["@type"].endswith("google.rpc.ErrorInfo"))
        reason = info["reason"]
    except (ValueError, KeyError, TypeError):
        return f"untyped {status}: {body[:100]!r}"
    if reason not in TABLE or reason == "CS_INTERNAL" or status in (500, 502, 503):
        return f"{status} {reason}: {document['message']}"
    return f"says too much: {body[:200]!r}" if b"Traceback" in body or b".py" in body else ""


@long_test
async def test_no_rest_path_fails_on_any_bytes(front: tuple[Edge, Served]) -> None:
    edge, served = front
    requests = OddHttp(RPCS, served.bearer("admin")[0][1])
    count = share(short=1_200, full=25_000)

    async def call(path: str, data: bytes) -> tuple[bool, str]:
        seconds = WATCH_SECONDS if "/Watch" in path else SECONDS
        answer = await asyncio.to_thread(exchange, edge.port, data, seconds, ends=path == NO_HTTP)
        return answer is None or answer[0] >= 400, wrong(answer, path)

    campaign = await fuzz_calls("rest", (requests.make() for _ in range(count)), count, call)
    campaign.check()
    assert len(campaign.passed_in) > 5, f"too few were let in: {sorted(campaign.passed_in)}"


async def test_headers_that_are_not_utf8_fill_no_log(
    front: tuple[Edge, Served], caplog: pytest.LogCaptureFixture
) -> None:
    edge, served = front
    bearer = served.bearer("admin")[0][1].encode()
    lines = (
        b"GET /v1/tenants/t_alpha0/mutations HTTP/1.1",
        b"host: h",
        b"authorization: " + bearer,
        b"x-odd: \xff\xfe",
    )
    request = b"\r\n".join((*lines, b"connection: close", b"", b""))

    async def logged() -> list[str]:
        caplog.clear()
        answer = await asyncio.to_thread(exchange, edge.port, request, SECONDS, ends=False)
        assert answer is not None and answer[0] == 200
        return [record.message for record in caplog.records if record.name == GRPC_LOGGER]

    assert await logged(), "the control: the library complains when nobody keeps it from it"
    logger = logging.getLogger(GRPC_LOGGER)
    logger.addFilter(is_worth_a_line)
    try:
        assert await logged() == []
    finally:
        logger.removeFilter(is_worth_a_line)


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"oops"),
        (0, b""),
        (400, b'{"details":[{"@type":"x/google.rpc.ErrorInfo","reason":"CS_MADE_UP"}],"message":"m"}'),
        (500, b'{"details":[{"@type":"x/google.rpc.ErrorInfo","reason":"CS_INTERNAL"}],"message":"m"}'),
        (400, b'{"details":[{"@type":"x/google.rpc.ErrorInfo","reason":"CS_VALIDATION_FIELD"}],"message":"Traceback"}'),
    ],
)
async def test_an_answer_that_a_caller_must_not_see_is_a_finding(answer: tuple[int, bytes]) -> None:
    assert wrong(answer, "/codesous.control.v1.FunctionService/GetFunction")
