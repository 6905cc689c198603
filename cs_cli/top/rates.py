"""From two looks to rates: calls a second, those that failed, the 99th percentile, and the busiest functions.

The operator's own calls and those of health checks are not counted: looking must not show. Calls that wait by their
nature are counted, and their length says nothing, so the percentile leaves them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from codesous.admin.v1.load_pb2 import FunctionLoad, Load, MethodLoad

from cs_cli.top.snapshot import Seen, Snapshot

_NOT_COUNTED: Final = "/codesous.admin."
_PART: Final = 0.99
_WAITS: Final = ("Watch", "Wait")


@dataclass(frozen=True, slots=True)
class ProcessRates:
    """One process between two looks; `p99` is in seconds, None when nothing was called."""

    name: str
    state: str
    error: str
    calls: float = 0.0
    failed: float = 0.0
    p99: float | None = None
    inflight: int = 0


@dataclass(frozen=True, slots=True)
class FunctionRates:
    """One function between two looks; `mean` is in seconds, None when no run ended."""

    tenant: str
    name: str
    runs: float
    mean: float | None
    live: int


def process_rates(before: Snapshot, after: Snapshot) -> list[ProcessRates]:
    """What each process did between two looks."""
    past = {seen.name: seen for seen in before.processes}
    seconds = max(after.taken - before.taken, 1e-6)
    return [_process(past.get(seen.name), seen, seconds) for seen in after.processes]


def _process(before: Seen | None, after: Seen, seconds: float) -> ProcessRates:
    if after.load is None:
        return ProcessRates(after.name, after.state, after.error)
    earlier = _by_method(before.load if before is not None else None)
    buckets: Counter[float] = Counter()
    calls = failed = 0
    for method, load in _by_method(after.load).items():
        past = earlier.get(method, MethodLoad())
        if load.calls < past.calls:
            past = MethodLoad()  # It was started again meanwhile.
        calls += load.calls - past.calls
        failed += load.failed_calls - past.failed_calls
        if method.rpartition("/")[2].startswith(_WAITS):
            continue
        known = {_upper(bucket): bucket.calls for bucket in past.buckets}
        for bucket in load.buckets:
            buckets[_upper(bucket)] += bucket.calls - known.get(_upper(bucket), 0)
    p99 = percentile(sorted(buckets.items()), _PART)
    return ProcessRates(
        after.name, after.state, after.error, calls / seconds, failed / seconds, p99, after.load.inflight
    )


def percentile(buckets: Sequence[tuple[float, int]], part: float) -> float | None:
    """The value that `part` of all are not above, in cumulated buckets by upper bound; straight between two bounds."""
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    wanted, low, below = total * part, 0.0, 0
    for upper, count in buckets:
        if count >= wanted:
            if upper == float("inf"):
                return low
            return low + (upper - low) * (wanted - below) / max(count - below, 1)
        low, below = upper, count
    return low


def function_rates(before: Snapshot, after: Snapshot) -> list[FunctionRates]:
    """What was run between two looks, the busiest first; what did not run and does not now is left out."""
    seconds = max(after.taken - before.taken, 1e-6)
    past, now = _by_function(before), _by_function(after)
    rates = []
    for key, load in now.items():
        earlier = past.get(key, FunctionLoad())
        if load.runs < earlier.runs:
            earlier = FunctionLoad()
        runs = load.runs - earlier.runs
        spent = (load.duration.ToNanoseconds() - earlier.duration.ToNanoseconds()) / 1e9
        if runs or load.live_runs:
            mean = spent / runs if runs else None
            rates.append(FunctionRates(key[0], f"{key[1]}/{key[2]}", runs / seconds, mean, load.live_runs))
    return sorted(rates, key=lambda each: (-each.runs, -each.live, each.tenant, each.name))


def _by_method(load: Load | None) -> dict[str, MethodLoad]:
    methods = load.methods if load is not None else ()
    return {each.method: each for each in methods if not each.method.startswith(_NOT_COUNTED)}


def _by_function(snapshot: Snapshot) -> dict[tuple[str, str, str], FunctionLoad]:
    """The loads of all processes together."""
    found: dict[tuple[str, str, str], FunctionLoad] = {}
    for seen in snapshot.processes:
        for load in seen.load.functions if seen.load is not None else ():
            held = found.setdefault((load.tenant, load.namespace, load.function), FunctionLoad())
            held.runs += load.runs
            held.live_runs += load.live_runs
            held.duration.FromNanoseconds(held.duration.ToNanoseconds() + load.duration.ToNanoseconds())
    return found


def _upper(bucket: object) -> float:
    upper = getattr(bucket, "upper", None)
    if upper is None or not bucket.HasField("upper"):  # type: ignore[attr-defined]
        return float("inf")
    return float(upper.ToNanoseconds()) / 1e9
