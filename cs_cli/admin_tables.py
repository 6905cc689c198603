"""What `cs admin` shows: rows of tables from what the processes say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from codesous.admin.v1.process_pb2 import Consumer, PartitionDepth
from codesous.queue.v1.envelope_pb2 import Lane
from rich.markup import escape

from cs_cli.messages import to_data
from cs_cli.output import moment, size
from cs_cli.processes import Answer

_TENANTS_SHOWN = 3


def escaped(text: str) -> str:
    """Text that is no markup."""
    return escape(text)


def seconds_of(text: str | None) -> float:
    """A duration of the contracts, `1.5s`, in seconds; 0 when there is none."""
    return float(text.removesuffix("s")) if text else 0.0


def length(text: str | None) -> str:
    """A duration of the contracts for people; empty when there is none."""
    return short(seconds_of(text)) if text else ""


def short(seconds: float) -> str:
    """A length of time for people, in five characters or so."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 48 else f"{hours // 24}d{hours % 24}h"


def health_data(answer: Answer[Any]) -> dict[str, Any]:
    """A process's readiness as plain data; `state` is ready, drained, not_serving or missing."""
    if answer.value is None:
        message = answer.error.message if answer.error is not None else ""
        return {"process": answer.target.name, "address": answer.target.address, "state": "missing", "error": message}
    data = to_data(answer.value)
    state = "ready" if data["ready"] else "drained" if data["draining"] else "not_serving"
    return {"process": answer.target.name, "address": answer.target.address, "state": state, **data}


def health_row(data: dict[str, Any]) -> Sequence[Any]:
    """Process, state, since when, and what is wrong, or was."""
    if data["state"] == "missing":
        return data["process"], "missing", "", data["error"]
    wrong = [
        f"{check['name']}: {check['message']} (since {moment(check.get('since_time'))})"
        for check in data["checks"]
        if not check["ready"]
    ]
    past = [
        f"{check['name']} was away at {moment(check['last_error_time'])}: {check['last_error']}"
        for check in data["checks"]
        if check["ready"] and "last_error_time" in check
    ]
    return data["process"], data["state"], moment(data.get("since_time")), "; ".join(wrong or past)


def partition_rows(partitions: Sequence[PartitionDepth]) -> Iterator[Sequence[Any]]:
    """One row for each partition that holds something."""
    for part in partitions:
        lanes = {lane.lane: to_data(lane) for lane in part.lanes}
        tenants = [f"{t.tenant or '-'} {t.ready}" for t in part.tenants[:_TENANTS_SHOWN]]
        more = len(part.tenants) - len(tenants)
        front, back = lanes.get(Lane.LANE_INTERACTIVE, {}), lanes.get(Lane.LANE_BACKGROUND, {})
        yield (
            part.partition,
            front.get("ready", 0),
            length(front.get("oldest_age")),
            back.get("ready", 0),
            length(back.get("oldest_age")),
            part.leased,
            part.delayed,
            ", ".join(tenants) + (f", {more} more" if more else ""),
        )


def consumer_rows(consumers: Sequence[Consumer]) -> Iterator[Sequence[Any]]:
    """One row for each invoker that lives."""
    for consumer in consumers:
        held = ", ".join(
            f"p{number} {taken}/{consumer.partition_permits}"
            for number, taken in sorted(consumer.partition_permits_taken.items())
        )
        state = "drained" if consumer.draining else "active"
        yield consumer.instance, state, consumer.permits, consumer.permits_taken, held


def cell_row(row: dict[str, Any]) -> Sequence[Any]:
    """Pid, tenant, state, age, memory, runs, and those that are in it."""
    memory = size(row["memory_bytes"]) if row["memory_bytes"] else ""
    tenant = row["tenant"] or "-"
    return row["pid"], tenant, row["state"], length(row.get("age")), memory, row["runs"], row["live_runs"]


def cache_row(row: dict[str, Any]) -> Sequence[Any]:
    """Process, name, entries, how many it may hold, bytes, look-ups."""
    asked = row["hits"] + row["misses"]
    rate = f"{100 * row['hits'] / asked:.0f}%" if asked else ""
    held = size(row["bytes"]) if row["bytes"] else ""
    return row["process"], row["name"], row["entries"], row["entries_max"], held, row["hits"], row["misses"], rate


def evidence(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of what a verdict rests on; what does not bear on it is left out."""
    ref = data.get("function", {})
    yield "activation", data["activation_id"]
    yield "tenant", data["tenant"]
    yield "function", f"{ref['namespace']}/{ref['function']}@{ref['version']}" if ref.get("function") else ""
    yield "status", "" if data["status"] == "unspecified" else data["status"]
    yield "accepted", moment(data.get("accept_time"))
    yield "deadline", moment(data.get("deadline"))
    yield "attempt", data["attempt"] or ""
    yield "owner", data["owner"]
    yield "lease until", moment(data.get("lease_expire_time"))
    yield "next run at", moment(data.get("next_time"))
    if data["status"] not in ("queued", "running"):
        yield "reason", data["reason"]
        yield "dead letter", data["dead_letter_id"]
        return
    place = data["place"] + (f" until {moment(data['message_time'])}" if "message_time" in data else "")
    yield "partition", data["partition"]
    yield "message", f"{place}, lane {data['lane']}, {data['deliveries']} deliveries"
    yield "in front", data["ahead"] or ""
    yield "slots", f"{data['slots_taken']} of {data['slots']} taken"
    for consumer in data["consumers"]:
        held = consumer["partition_permits_taken"].get(str(data["partition"]), 0)
        drained = ", drained" if consumer["draining"] else ""
        yield (
            "consumer",
            f"{consumer['instance']}: {consumer['permits_taken']} of {consumer['permits']} permits, "
            f"{held} of {consumer['partition_permits']} of this partition{drained}",
        )
