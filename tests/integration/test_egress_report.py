"""Egress that is only reported: what would be denied happens, and stands in three places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.type.v1.capabilities_pb2 import Capabilities, HttpCapability
from codesous.type.v1.log_entry_pb2 import LOG_LEVEL_WARN, LogEntry
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from cs_core.store.client import KvClient
from tests.integration.test_invoker_host_api import SECRET, settings
from tests.support.invocations import Ingress, status_of
from tests.support.invokers import running_invoker
from tests.support.web_server import LOOPBACK, Received, Reply, web_server

DENIED = "CS_RUNTIME_CAPABILITY_DENIED"
# Addresses, so that no name is looked up; not public, so that none is connected to.
ELSEWHERE = HttpCapability(allow_hosts=["10.1.1.1"])


async def hello(_request: Received) -> Reply:
    return 200, [], b"hello"


async def run(ingress: Ingress, name: str, source: str, event: str, *, report: bool, **more: Any) -> Activation:
    ref = await ingress.put_version(
        name,
        f"export default async (event) => {{ {source} }}",
        capabilities=Capabilities(http=ELSEWHERE, **more),
        egress_report_only=report,
    )
    return await ingress.ended(await ingress.submit(ingress.make_request(ref, event, reply_to="poller-1")))


async def logged(ingress: Ingress, record: Activation) -> list[LogEntry]:
    return list(await ingress.activations.logs(ingress.tenant, record.activation_id, 0, 200))


FETCH_TWICE = """
const get = (url) => fetch(url).then((r) => r.text()).catch((e) => e.reason);
return [await get(event), await get(event + "/again"), await get("http://127.0.0.1:1/")]"""


@pytest.mark.parametrize("report", [True, False])
async def test_a_host_that_is_not_named_is_let_through_and_told_of_once(
    kv: KvClient, redis_url: str, tmp_path: Path, report: bool
) -> None:
    """With the flag off, the control, the same function is denied and nothing is reported."""
    ingress, registry = Ingress(kv), CollectorRegistry()
    async with web_server(hello) as server:
        with capture_logs() as lines:
            async with running_invoker(settings(redis_url, tmp_path), registry=registry):
                record = await run(ingress, f"reporting-{report}".lower(), FETCH_TWICE, server.url, report=report)
    assert status_of(record) == "SUCCESS", record.error
    # An address that is not public stays denied, whatever is reported.
    assert json.loads(record.response.body) == (["hello", "hello", DENIED] if report else [DENIED] * 3)
    assert len(server.requests) == (2 if report else 0)
    told = [line for line in await logged(ingress, record) if line.message.startswith("[egress]")]
    reported = [line for line in lines if line["event"] == "a fetch would be denied"]
    count = registry.get_sample_value("cs_invoker_egress_reports_total")
    if not report:
        assert (told, reported, count) == ([], [], 0)
        return
    assert [line.level for line in told] == [LOG_LEVEL_WARN] * 2
    assert [LOOPBACK in told[0].message, "127.0.0.1" in told[1].message] == [True, True]
    assert {(line["function"], line["version"], line["host"]) for line in reported} == {
        ("default/reporting-true", 1, LOOPBACK),
        ("default/reporting-true", 1, "127.0.0.1"),
    }
    assert count is not None
    assert count >= 3


async def test_a_host_that_is_named_is_not_reported(kv: KvClient, redis_url: str, tmp_path: Path) -> None:
    ingress, registry = Ingress(kv), CollectorRegistry()
    async with running_invoker(settings(redis_url, tmp_path), registry=registry):
        source = 'return await fetch("http://10.1.1.1/").catch((e) => e.reason)'
        record = await run(ingress, "named", source, "", report=True)
    assert status_of(record) == "SUCCESS"
    assert await logged(ingress, record) == []
    assert registry.get_sample_value("cs_invoker_egress_reports_total") == 0


async def test_a_secret_in_a_hosts_name_is_not_written_down(kv: KvClient, redis_url: str, tmp_path: Path) -> None:
    ingress = Ingress(kv)
    (tmp_path / "x").mkdir()
    with capture_logs() as lines:
        async with running_invoker(settings(redis_url, tmp_path, secrets=_plain_secret(tmp_path))):
            source = (
                'return await fetch("http://" + await cs.secrets.get("plain") + ".invalid/").catch((e) => e.reason)'
            )
            record = await run(ingress, "leaking", source, "", report=True, secrets=["plain"])
    (line,) = await logged(ingress, record)
    assert "[redacted].invalid" in line.message
    assert "hunter2hunter2" not in str(lines)
    assert SECRET not in str(lines)


def _plain_secret(folder: Path) -> dict[str, str]:
    path = folder / "x" / "secrets.json"
    path.write_text(json.dumps({"t_alpha0": {"plain": "hunter2hunter2"}}))
    return {"provider": "file", "path": str(path)}


async def test_no_more_hosts_are_told_of_than_some(kv: KvClient, redis_url: str, tmp_path: Path) -> None:
    ingress, registry = Ingress(kv), CollectorRegistry()
    source = """
    for (let n = 0; n < 80; n++) await fetch("http://10.2.2." + n + "/").catch(() => 0);
    return 1"""
    async with running_invoker(settings(redis_url, tmp_path), registry=registry):
        record = await run(ingress, "scanning", source, "", report=True)
    assert status_of(record) == "SUCCESS", record.error
    assert len(await logged(ingress, record)) == 64
    count = registry.get_sample_value("cs_invoker_egress_reports_total")
    assert count is not None
    assert count >= 80
