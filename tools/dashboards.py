"""The Grafana dashboards: a few panels each, every one the answer to a question."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

_WIDTH, _HEIGHT = 12, 8
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
RATE: Final = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its question, its unit in Grafana's words, and its queries by legend."""

    title: str
    unit: str
    queries: dict[str, str]


def _rate(series: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({series}{RATE}))"


def _quantiles(histogram: str) -> dict[str, str]:
    buckets = f"sum by (le) (rate({histogram}_bucket{RATE}))"
    return {f"p{int(q * 100)}": f"histogram_quantile({q}, {buckets})" for q in (0.5, 0.95, 0.99)}


DASHBOARDS: Final = {
    "overview": (
        Panel("Is everything ready?", "bool_on_off", {"{{job}} {{instance}}": "cs_process_ready"}),
        Panel(
            "How much is asked for, and how does it end?", "reqps", {"{{code}}": _rate("cs_api_requests_total", "code")}
        ),
        Panel("How do activations end?", "ops", {"{{status}}": _rate("cs_invocations_total", "status")}),
        Panel("How long do runs take?", "s", _quantiles("cs_invocation_duration_seconds")),
        Panel("How long does what is waiting wait?", "s", {"{{lane}}": "max by (lane) (cs_queue_oldest_age_seconds)"}),
        Panel("How much was given up?", "short", {"dead letters": "max(cs_queue_dead_letters)"}),
    ),
    "calls": (
        Panel(
            "Which methods are called?",
            "reqps",
            {"{{method}}": f"topk(10, {_rate('cs_api_requests_total', 'method')})"},
        ),
        Panel(
            "Which methods fail for reasons of ours?",
            "percentunit",
            {
                "{{method}}": _rate('cs_api_requests_total{code=~"UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"}', "method")
                + " / "
                + _rate("cs_api_requests_total", "method")
            },
        ),
        Panel("How long do calls take?", "s", _quantiles("cs_api_request_duration_seconds")),
        Panel(
            "What does the gate refuse, and why?", "reqps", {"{{reason}}": _rate("cs_gateway_refused_total", "reason")}
        ),
        Panel("How many callers wait for results?", "short", {"{{instance}}": "cs_gateway_waiting"}),
        Panel(
            "Do the caches help?",
            "percentunit",
            {
                "{{cache}}": _rate('cs_cache_lookups_total{outcome="hit"}', "cache")
                + " / "
                + _rate("cs_cache_lookups_total", "cache")
            },
        ),
    ),
    "queue": (
        Panel("How much waits?", "short", {"{{lane}}": "max by (lane) (cs_queue_ready_messages)"}),
        Panel("For how long?", "s", {"{{lane}}": "max by (lane) (cs_queue_oldest_age_seconds)"}),
        Panel("Whose is it?", "s", {"{{tenant}}": "max by (tenant) (cs_queue_tenant_oldest_age_seconds)"}),
        Panel("How much of it?", "short", {"{{tenant}}": "max by (tenant) (cs_queue_tenant_ready_messages)"}),
        Panel(
            "What is held, and what waits for its time?",
            "short",
            {"held": "max(cs_queue_leased_messages)", "delayed": "max(cs_queue_delayed_messages)"},
        ),
        Panel("Who takes it?", "short", {"invokers": "max(cs_queue_consumers)"}),
    ),
    "invokers": (
        Panel("How busy is each?", "short", {"{{instance}}": "cs_invoker_inflight"}),
        Panel("How long were requests in the queue?", "s", _quantiles("cs_invoker_queue_lag_seconds")),
        Panel(
            "How many runs are cold?",
            "percentunit",
            {"cold": f"{_rate('cs_invoker_cold_starts_total')} / {_rate('cs_invoker_runs_total')}"},
        ),
        Panel("What are the cells doing?", "short", {"{{state}}": "sum by (state) (cs_invoker_cells)"}),
        Panel("Why are cells ended?", "ops", {"{{reason}}": _rate("cs_invoker_cell_kills_total", "reason")}),
        Panel(
            "What goes wrong?",
            "ops",
            {
                "retried": _rate("cs_invoker_retries_total"),
                "taken over": _rate("cs_invoker_takeovers_total"),
                "given up": _rate("cs_invoker_dead_letters_total"),
                "ended by a neighbour": _rate("cs_invoker_bystanders_total"),
            },
        ),
    ),
    "schedules-and-cadence": (
        Panel("What becomes of ticks?", "ops", {"{{outcome}}": _rate("cs_scheduler_ticks_total", "outcome")}),
        Panel("How late are they?", "s", _quantiles("cs_scheduler_lateness_seconds")),
        Panel(
            "Is every shard led?",
            "short",
            {"led": "sum(cs_scheduler_shards_held)", "all": "max(cs_scheduler_shards)"},
        ),
        Panel("What do polls bring?", "ops", {"{{outcome}}": _rate("cs_cadence_polls_total", "outcome")}),
        Panel(
            "Are there permits left?", "short", {"held": "sum(cs_cadence_inflight)", "all": "sum(cs_cadence_permits)"}
        ),
        Panel("How are tasks answered?", "ops", {"{{outcome}}": _rate("cs_cadence_answers_total", "outcome")}),
    ),
    "audit": (
        Panel("Is the ledger behind?", "s", {"lag": "max(cs_audit_relay_lag_seconds)"}),
        Panel("Does one process relay?", "short", {"relays": "sum(cs_audit_relay_leader)"}),
        Panel("How much is relayed?", "ops", {"relayed": _rate("cs_audit_relayed_total")}),
        Panel("What does the ledger refuse?", "ops", {"{{kind}}": _rate("cs_audit_ledger_failures_total", "kind")}),
    ),
}


def dashboards() -> dict[str, str]:
    """The files by name."""
    return {f"{name}.json": _dashboard(name, panels) for name, panels in DASHBOARDS.items()}


def _dashboard(name: str, panels: tuple[Panel, ...]) -> str:
    board: dict[str, Any] = {
        "uid": f"code-sous-{name}",
        "title": f"code-sous: {name.replace('-', ' ')}",
        "tags": ["code-sous"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "links": [{"type": "dashboards", "tags": ["code-sous"], "title": "code-sous", "asDropdown": False}],
        "panels": [_panel(place, panel) for place, panel in enumerate(panels)],
    }
    return json.dumps(board, indent=2) + "\n"


def _panel(place: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": _WIDTH * (place % 2), "y": _HEIGHT * (place // 2), "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }
