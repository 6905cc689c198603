"""`cs top`: rates from two looks, and a page that fits whatever terminal there is."""

from __future__ import annotations

import pytest
from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.load_pb2 import DurationBucket, FunctionLoad, Load, MethodLoad
from codesous.admin.v1.process_pb2 import Cell, CellState, Consumer, LaneDepth, PartitionDepth, TenantDepth
from codesous.queue.v1.envelope_pb2 import Lane
from rich.cells import cell_len

from cs_cli.top.rates import function_rates, percentile, process_rates
from cs_cli.top.screen import page
from cs_cli.top.snapshot import Seen, Snapshot

INVOKE = "/codesous.gateway.v1.InvocationService/Invoke"
ADMIN = "/codesous.admin.v1.AdminService/GetLoad"


def method(name: str, calls: int, failed: int = 0, slow: int = 0) -> MethodLoad:
    """Calls of at most 10 ms, `slow` of them of at most 100 ms."""
    buckets = [DurationBucket(calls=calls - slow), DurationBucket(calls=calls), DurationBucket(calls=calls)]
    buckets[0].upper.FromMilliseconds(10)
    buckets[1].upper.FromMilliseconds(100)
    return MethodLoad(method=name, calls=calls, failed_calls=failed, buckets=buckets)


def function(name: str, runs: int, milliseconds: int, live: int = 0) -> FunctionLoad:
    load = FunctionLoad(tenant="t_alpha0", namespace="default", function=name, runs=runs, live_runs=live)
    load.duration.FromMilliseconds(milliseconds)
    return load


def look(at: float, *processes: Seen, queue: pb.GetQueueDepthResponse | None = None) -> Snapshot:
    return Snapshot(at, processes, queue, wall=0.0)


def gateway(*methods: MethodLoad) -> Seen:
    return Seen("cs-http-gateway", "ready", load=Load(methods=methods, inflight=3))


def test_rates_are_of_the_time_between_two_looks_and_of_tenants_calls() -> None:
    before = look(10.0, gateway(method(INVOKE, 100, 1), method(ADMIN, 50)))
    after = look(12.0, gateway(method(INVOKE, 300, 5), method(ADMIN, 90, 40)))
    (rates,) = process_rates(before, after)
    assert (rates.calls, rates.failed, rates.inflight) == (100.0, 2.0, 3)
    assert rates.p99 == pytest.approx(0.0099)


def test_the_percentile_is_of_the_calls_between_two_looks() -> None:
    before = look(0.0, gateway(method(INVOKE, 10_000)))
    (rates,) = process_rates(before, look(1.0, gateway(method(INVOKE, 10_100, slow=100))))
    assert rates.p99 == pytest.approx(0.0991)
    (rates,) = process_rates(before, look(1.0, gateway(method(INVOKE, 10_000))))
    assert rates.p99 is None


def test_calls_that_wait_by_their_nature_are_counted_and_not_timed() -> None:
    path = "/codesous.gateway.v1.ActivationService/WaitActivation"
    (rates,) = process_rates(look(0.0, gateway()), look(1.0, gateway(method(path, 10, slow=10))))
    assert (rates.calls, rates.p99) == (10.0, None)


def test_a_process_that_was_started_again_begins_anew() -> None:
    before = look(0.0, gateway(method(INVOKE, 10_000, 7)))
    (rates,) = process_rates(before, look(2.0, gateway(method(INVOKE, 4))))
    assert (rates.calls, rates.failed) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ([], None),
        ([(0.1, 0), (float("inf"), 0)], None),
        ([(0.1, 100), (float("inf"), 100)], 0.099),
        ([(0.1, 50), (0.3, 100), (float("inf"), 100)], 0.296),
        ([(0.1, 50), (float("inf"), 100)], 0.1),
    ],
)
def test_percentile(buckets: list[tuple[float, int]], expected: float | None) -> None:
    found = percentile(buckets, 0.99)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_functions_of_all_invokers_are_added_and_the_busiest_is_first() -> None:
    def invoker(name: str, *functions: FunctionLoad) -> Seen:
        return Seen(name, "ready", load=Load(functions=functions))

    before = look(0.0, invoker("a", function("slow", 10, 1000), function("still", 5, 5)), invoker("b"))
    after = look(
        2.0,
        invoker("a", function("slow", 14, 3000, live=1), function("fast", 50, 100), function("still", 5, 5)),
        invoker("b", function("fast", 50, 300)),
    )
    fast, slow = function_rates(before, after)
    assert (fast.name, fast.runs, fast.live) == ("default/fast", 50.0, 0)
    assert fast.mean == pytest.approx(0.004)
    assert (slow.name, slow.runs, slow.live) == ("default/slow", 2.0, 1)
    assert slow.mean == pytest.approx(0.5)


def busy() -> tuple[Snapshot, Snapshot]:
    """More of everything than a small terminal holds."""
    queue = pb.GetQueueDepthResponse(consumers=[Consumer(instance="i", permits=4)])
    for number in range(16):
        part = PartitionDepth(partition=number, leased=1, delayed=2)
        lane = LaneDepth(lane=Lane.LANE_INTERACTIVE, ready=number)
        lane.oldest_age.FromSeconds(number)
        part.lanes.append(lane)
        tenant = TenantDepth(tenant="t_alpha0", ready=number)
        tenant.oldest_age.FromSeconds(number)
        part.tenants.append(tenant)
        queue.partitions.append(part)
    cells = [
        Cell(pid=number, tenant=f"t_tenant{number}", state=CellState.CELL_STATE_BUSY, runs=number, memory_bytes=2**20)
        for number in range(1, 9)
    ]

    def seen(runs: int) -> list[Seen]:
        functions = [function(f"a_function_with_a_long_name_{number}", runs * number, runs) for number in range(1, 30)]
        names = ("cs-control", "cs-http-gateway", "cs-scheduler", "cs-cadence-poller")
        others = [Seen(name, "ready", load=Load(methods=[method(INVOKE, runs)])) for name in names]
        return [*others, Seen("cs-invoker-pool", "ready", load=Load(functions=functions), cells=cells)]

    return look(0.0, *seen(0), queue=queue), look(1.0, *seen(10), queue=queue)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 10), (80, 8), (20, 3)])
def test_the_page_fits_the_terminal(width: int, height: int) -> None:
    lines = page(*busy(), width, height, 2.0).plain.split("\n")
    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width


def test_at_80_by_24_every_part_is_there_and_says_what_is_left_out() -> None:
    lines = page(*busy(), 80, 24, 2.0).plain.split("\n")
    assert len(lines) == 24
    for begin in ("cs top", "PROCESS", "cs-control", "cs-invoker-pool", "QUEUE", "CELLS", "FUNCTION"):
        assert any(line.startswith(begin) for line in lines), begin
    assert sum(line.startswith("... ") for line in lines) == 3
    # What waits most is first, and what runs most.
    assert any(line.startswith("p15") for line in lines)
    assert any(line.startswith("default/a_function_with_a_long") for line in lines)


def test_without_a_height_nothing_is_left_out() -> None:
    text = page(*busy(), 120, None, 2.0).plain
    assert "... " not in text
    assert text.count("default/a_function") == 29


def test_one_that_does_not_answer_and_one_that_is_not_ready_say_why() -> None:
    after = look(1.0, Seen("cs-control", "missing", "connection refused"), Seen("x", "not_serving", "store: away"))
    text = page(look(0.0), after, 80, 24, 2.0).plain
    assert "0/2 ready" in text
    assert "connection refused" in text
    assert "store: away" in text
    assert "nobody tells" in text


def test_text_of_tenants_is_no_markup_and_wide_characters_keep_the_columns() -> None:
    queue = pb.GetQueueDepthResponse()
    part = PartitionDepth(partition=1, leased=1)
    part.tenants.append(TenantDepth(tenant="[red]界", ready=1))
    queue.partitions.append(part)
    lines = page(look(0.0), look(1.0, queue=queue), 80, 24, 2.0).plain.split("\n")
    assert any("[red]界" in line for line in lines)
