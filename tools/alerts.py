"""The alert rules: one table, from which the file for Prometheus and the index of the runbooks follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

_FAULTS: Final = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `page` says whether somebody is woken; `runbook` names its page in docs/runbooks."""

    name: str
    expression: str
    lasting: str
    page: bool
    runbook: str
    summary: str


def _burn(window: str, rate: float) -> str:
    """Whether the share of failed calls spends the budget of 0.1 % that much faster than a month allows."""
    failed = f'sum(rate(cs_api_requests_total{{code=~"{_FAULTS}"}}[{window}]))'
    return f"{failed} / sum(rate(cs_api_requests_total[{window}])) > {rate} * 0.001"


ALERTS: Final = (
    Alert(
        "CodeSousProcessAway",
        'up{job=~"cs-.*"} == 0',
        "2m",
        True,
        "process-away",
        "A process does not answer its scrape.",
    ),
    Alert(
        "CodeSousStoreAway",
        'min by (job) (cs_process_check_ready{check=~"store|codeq"}) == 0',
        "30s",
        True,
        "store-away",
        "A process does not reach the store or the queue.",
    ),
    Alert(
        "CodeSousErrorsFast",
        f"{_burn('5m', 14.4)} and {_burn('1h', 14.4)}",
        "2m",
        True,
        "errors",
        "Calls fail for reasons of ours: at this pace a month's budget is gone in two days.",
    ),
    Alert(
        "CodeSousErrorsSlow",
        f"{_burn('30m', 6)} and {_burn('6h', 6)}",
        "15m",
        False,
        "errors",
        "Calls fail for reasons of ours: at this pace a month's budget is gone in five days.",
    ),
    Alert(
        "CodeSousBacklogOld",
        'max by (lane) (cs_queue_oldest_age_seconds{lane="interactive"}) > 5',
        "1m",
        True,
        "backlog",
        "Invocations that somebody waits for are not taken within 5 s.",
    ),
    Alert(
        "CodeSousBackgroundBacklogOld",
        'max by (lane) (cs_queue_oldest_age_seconds{lane="background"}) > 300',
        "5m",
        False,
        "backlog",
        "Invocations of the background lane wait for more than 5 minutes.",
    ),
    Alert(
        "CodeSousQueueLag",
        "histogram_quantile(0.99, sum by (le) (rate(cs_invoker_queue_lag_seconds_bucket[5m]))) > 1",
        "5m",
        False,
        "backlog",
        "One request in a hundred is in the queue for more than 1 s.",
    ),
    Alert(
        "CodeSousNoInvoker",
        "max(cs_queue_consumers) == 0",
        "1m",
        True,
        "no-invoker",
        "No invoker reports to the store: nothing is run.",
    ),
    Alert(
        "CodeSousBacklogUnread",
        "time() - max(cs_queue_read_timestamp_seconds) > 60",
        "1m",
        False,
        "store-away",
        "The queue has not been read for a minute: what is shown of it is old.",
    ),
    Alert(
        "CodeSousShardsWithoutLeader",
        "sum(cs_scheduler_shards_held) < max(cs_scheduler_shards)",
        "1m",
        True,
        "scheduler",
        "Shards of schedules are led by nobody: their ticks do not come.",
    ),
    Alert(
        "CodeSousTicksLate",
        "histogram_quantile(0.99, sum by (le) (rate(cs_scheduler_lateness_seconds_bucket[10m]))) > 5",
        "5m",
        False,
        "scheduler",
        "One tick in a hundred comes more than 5 s late.",
    ),
    Alert(
        "CodeSousAuditBehind",
        "max(cs_audit_relay_lag_seconds) > 60",
        "2m",
        False,
        "audit-behind",
        "Mutations have waited for the ledger for more than a minute.",
    ),
    Alert(
        "CodeSousNoRelay",
        "max(cs_audit_relay_leader) == 0",
        "2m",
        False,
        "audit-behind",
        "No process relays mutations to the ledger.",
    ),
    Alert(
        "CodeSousCellsCrash",
        'sum(rate(cs_invoker_cell_kills_total{reason=~"breach|start"}[5m])) '
        "/ sum(rate(cs_invoker_runs_total[5m])) > 0.05",
        "5m",
        False,
        "cells",
        "Cells break the protocol or do not start, for more than one run in twenty.",
    ),
    Alert(
        "CodeSousZygoteRestarts",
        "sum by (instance) (increase(cs_invoker_zygote_starts_total[10m])) > 3",
        "1m",
        False,
        "cells",
        "The process that cells are forked from dies again and again.",
    ),
    Alert(
        "CodeSousPollerStarved",
        "sum(cs_cadence_inflight) / sum(cs_cadence_permits) > 0.95",
        "10m",
        False,
        "poller",
        "Nearly all permits are taken: Cadence tasks wait at the server.",
    ),
    Alert(
        "CodeSousPollsFail",
        'sum(cs_cadence_bindings{state="failing"}) > 0',
        "5m",
        False,
        "poller",
        "Worker bindings cannot poll.",
    ),
    Alert(
        "CodeSousDeadLettersGrow",
        "max(delta(cs_queue_dead_letters[30m])) > 10",
        "1m",
        False,
        "dead-letters",
        "More than ten activations were given up within half an hour.",
    ),
    Alert(
        "CodeSousRefusals",
        "sum(rate(cs_gateway_refused_total[5m])) "
        "/ (sum(rate(cs_gateway_refused_total[5m])) + sum(rate(cs_gateway_admitted_total[5m]))) > 0.1",
        "10m",
        False,
        "refusals",
        "The gate refuses more than one request in ten.",
    ),
)
HEAD: Final = "# Written by `make gen` from tools/alerts.py.\ngroups:\n  - name: code-sous\n    rules:\n"


def alerts_file() -> str:
    """The rules as Prometheus reads them. Strings are JSON's, which YAML's contain."""
    parts = [HEAD]
    for alert in ALERTS:
        parts.append(
            f"      - alert: {alert.name}\n"
            f"        expr: {json.dumps(alert.expression)}\n"
            f"        for: {alert.lasting}\n"
            f"        labels:\n          severity: {'page' if alert.page else 'ticket'}\n"
            f"        annotations:\n"
            f"          summary: {json.dumps(alert.summary)}\n"
            f"          runbook: docs/runbooks/{alert.runbook}.md\n"
        )
    return "".join(parts)


def runbooks_index() -> str:
    """Which page belongs to which alert."""
    lines = [
        "# Runbooks\n\n<!-- Generated by `make gen` from tools/alerts.py. -->\n\n"
        "What to do at an alert of `deploy/observability/alerts.yml`. `page` wakes somebody, `ticket` can wait for the "
        "morning.\n\n| alert | severity | says | runbook |\n|---|---|---|---|\n"
    ]
    for alert in ALERTS:
        severity = "page" if alert.page else "ticket"
        page = f"[{alert.runbook}]({alert.runbook}.md)"
        lines.append(f"| `{alert.name}` | {severity} | {alert.summary} | {page} |\n")
    return "".join(lines)
