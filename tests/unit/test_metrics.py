"""What metrics show, and that whatever dashboards, alerts and runbooks name is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from codesous.queue.v1.envelope_pb2 import Lane
from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.codeq.contract import PartitionDepth
from cs_core.codeq.kv_view import Backlog, TenantBacklog
from cs_core.errors import UnavailableError
from cs_core.operations.installation import PartLook, QueueLook
from cs_core.telemetry.backlog import OTHER, TENANTS_MAX, BacklogSeries
from cs_invoker.pool_series import PoolSeries
from cs_sandbox.pool import PoolStats
from tools.alerts import ALERTS
from tools.dashboards import DASHBOARDS
from tools.metrics_page import all_series

ROOT = Path(__file__).parents[2]
SERIES = {name: series for found in all_series().values() for series in found for name in series.samples}
FROM_PROMETHEUS = {"up"}
_NAME = re.compile(r"\b(cs_[a-z_]+|up)\b")
_SELECTOR = re.compile(r"\b(cs_[a-z_]+)\{([^}]*)\}")
_BY = re.compile(r"\bby \(([^)]*)\)")
SCRAPED = {"job", "instance", "le"}


def queries() -> Iterator[tuple[str, str]]:
    for alert in ALERTS:
        yield alert.name, alert.expression
    for board, panels in DASHBOARDS.items():
        for panel in panels:
            for query in panel.queries.values():
                yield f"{board}: {panel.title}", query


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_dashboards_and_alerts_name_series_and_labels_that_exist(where: str, query: str) -> None:
    names = set(_NAME.findall(re.sub(r"\{[^}]*\}|by \([^)]*\)", "", query)))
    assert names, where
    assert names - set(SERIES) - FROM_PROMETHEUS == set()
    for name, selector in _SELECTOR.findall(query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))
        assert labels <= {*SERIES[name].labels, *SCRAPED}, where
    labels = {label.strip() for group in _BY.findall(query) for label in group.split(",")}
    assert labels <= {*SCRAPED, *(label for name in names - FROM_PROMETHEUS for label in SERIES[name].labels)}, where


def test_a_counter_is_read_as_a_rate() -> None:
    for where, query in queries():
        for name in _NAME.findall(query):
            if name in SERIES and SERIES[name].kind == "counter":
                assert re.search(rf"(rate|increase)\({name}", query), where


def test_legends_show_labels_that_their_queries_keep() -> None:
    for board, panels in DASHBOARDS.items():
        for panel in panels:
            for legend, query in panel.queries.items():
                (name, *_) = (name for name in _NAME.findall(query) if name in SERIES)
                assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= {*SERIES[name].labels, *SCRAPED}, (board, legend)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_that_says_what_to_look_at_and_to_do(alert: object) -> None:
    page = (ROOT / "docs" / "runbooks" / f"{alert.runbook}.md").read_text()  # type: ignore[attr-defined]
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == ["What it means", "What to look at", "What to do"]
    for link in re.findall(r"\]\(([^)#]+\.md)\)", page):
        assert (ROOT / "docs" / "runbooks" / link).resolve().exists(), link


def test_every_runbook_belongs_to_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {alert.runbook for alert in ALERTS}


def test_dashboards_are_what_grafana_reads() -> None:
    boards = [json.loads(path.read_text()) for path in (ROOT / "deploy/observability/dashboards").glob("*.json")]
    assert len({board["uid"] for board in boards}) == len(boards) == len(DASHBOARDS)
    for board in boards:
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(set(places)) == len(places)
        assert all(panel["fieldConfig"]["defaults"]["unit"] and panel["targets"] for panel in board["panels"])


def look(tenants: dict[str, TenantBacklog]) -> QueueLook:
    ready = {Lane.LANE_INTERACTIVE: sum(each.ready for each in tenants.values()), Lane.LANE_BACKGROUND: 2}
    backlog = Backlog({Lane.LANE_INTERACTIVE: timedelta(seconds=9)}, tenants)
    return QueueLook((PartLook(0, PartitionDepth(ready, 3, 4), backlog),), (), 5)


async def test_tenants_past_the_cap_are_one_and_those_without_backlog_are_none() -> None:
    registry, seen = CollectorRegistry(), [look({})]
    many = {f"t_tenant{n:02}": TenantBacklog(1, timedelta(seconds=n)) for n in range(TENANTS_MAX + 5)}

    async def read() -> QueueLook:
        return seen[0]

    series = BacklogSeries(registry, read, SystemClock())
    seen[0] = look(many)
    await series.read()
    value = registry.get_sample_value
    assert value("cs_queue_tenant_oldest_age_seconds", {"tenant": f"t_tenant{TENANTS_MAX + 4}"}) == TENANTS_MAX + 4
    assert value("cs_queue_tenant_oldest_age_seconds", {"tenant": "t_tenant04"}) is None
    assert value("cs_queue_tenant_oldest_age_seconds", {"tenant": OTHER}) == 4
    assert value("cs_queue_tenant_ready_messages", {"tenant": OTHER}) == 5
    assert value("cs_queue_ready_messages", {"lane": "background"}) == 2
    assert value("cs_queue_oldest_age_seconds", {"lane": "interactive"}) == 9
    assert (value("cs_queue_leased_messages"), value("cs_queue_delayed_messages")) == (3, 4)
    assert value("cs_queue_dead_letters") == 5
    seen[0] = look({})
    await series.read()
    assert value("cs_queue_tenant_ready_messages", {"tenant": OTHER}) is None


async def test_with_the_store_away_the_last_reading_stays_and_its_failures_count() -> None:
    registry, away = CollectorRegistry(), [False]

    async def read() -> QueueLook:
        if away[0]:
            raise UnavailableError("CS_STORE_UNAVAILABLE", "away")
        return look({})

    series = BacklogSeries(registry, read, SystemClock())
    await series.read()
    away[0], before = True, registry.get_sample_value("cs_queue_read_timestamp_seconds")
    await series.read()
    assert registry.get_sample_value("cs_queue_readings_total", {"outcome": "failed"}) == 1
    assert registry.get_sample_value("cs_queue_read_timestamp_seconds") == before is not None
    assert registry.get_sample_value("cs_queue_dead_letters") == 5


def test_the_pool_of_cells_is_shown() -> None:
    registry = CollectorRegistry()
    PoolSeries(registry, lambda: PoolStats({"spare": 2}, 3, 10, 1, 0, {"idle": 4}, 1, (), ()))
    assert registry.get_sample_value("cs_invoker_runs_waiting") == 3
    assert registry.get_sample_value("cs_invoker_cell_kills_total", {"reason": "idle"}) == 4
    assert registry.get_sample_value("cs_invoker_cells", {"state": "spare"}) == 2
