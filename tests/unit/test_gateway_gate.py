"""The gate of the gateway: rates, seats and the depth of the queue, each a refusal that says when to come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.runtime.v1.version_config_pb2 import VersionConfig

from cs_core.clock import ManualClock
from cs_core.codeq.contract import Depth, PartitionDepth
from cs_core.errors import LimitError, UnavailableError
from cs_core.store import keys
from cs_gateway.gate import Gate
from cs_gateway.queue_depths import QueueDepths
from cs_gateway.rate_limits import RateLimits
from tests.support.waiting import wait_until

TENANT, OTHER = "t_alpha0", "t_beta00"
PARTITIONS = 16


class Deep:
    """A queue of which only the depth is asked."""

    def __init__(self) -> None:
        self.ready: dict[int, int] = {}
        self.reads = 0
        self.away = False

    async def depth(self, _topic: str) -> Depth:
        self.reads += 1
        if self.away:
            raise UnavailableError("CS_CODEQ_UNAVAILABLE", "away")
        lane = Lane.LANE_INTERACTIVE
        return Depth({number: PartitionDepth({lane: count}, 0, 0) for number, count in self.ready.items()})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def version(rps: int = 0, function: str = "hello") -> Version:
    return Version(tenant=TENANT, namespace="default", function=function, config=VersionConfig(rate_limit_rps=rps))


@contextmanager
def refused(reason: str) -> Iterator[pytest.ExceptionInfo[LimitError]]:
    with pytest.raises(LimitError) as error:
        yield error
    assert error.value.reason == reason
    assert error.value.retry_after is not None
    assert error.value.retry_after > timedelta(0)


def test_a_rate_lets_a_seconds_worth_in_at_once_and_then_one_for_each_moment_that_brings_one(
    clock: ManualClock,
) -> None:
    rates = RateLimits(10, clock, lambda: 1)
    for _ in range(10):
        rates.check_tenant(TENANT)
    with refused("CS_RATE_LIMITED") as error:
        rates.check_tenant(TENANT)
    assert error.value.retry_after == timedelta(seconds=0.1)
    rates.check_tenant(OTHER)
    clock.advance(error.value.retry_after)
    rates.check_tenant(TENANT)
    with refused("CS_RATE_LIMITED"):
        rates.check_tenant(TENANT)


@pytest.mark.parametrize("gateways", [1, 2, 5])
def test_over_a_long_time_the_rate_is_the_limit_divided_by_the_gateways(clock: ManualClock, gateways: int) -> None:
    rates = RateLimits(100, clock, lambda: gateways)
    source = random.Random(1)
    passed, seconds = 0, 200.0
    while clock.monotonic() < seconds:
        clock.advance(timedelta(seconds=source.uniform(0, 0.004)))
        try:
            rates.check_tenant(TENANT)
            passed += 1
        except LimitError:
            pass
    # What one second brings is let in at once, at the beginning.
    assert passed == pytest.approx(100 / gateways * (seconds + 1), rel=0.01)


def test_a_function_has_the_rate_of_its_version_and_none_without(clock: ManualClock) -> None:
    rates = RateLimits(1000, clock, lambda: 1)
    rates.check_function(version(rps=1))
    with refused("CS_RATE_LIMITED") as error:
        rates.check_function(version(rps=1))
    assert "default/hello" in error.value.message
    rates.check_function(version(rps=1, function="other"))
    for _ in range(2000):
        rates.check_function(version())


def gate(clock: ManualClock, queue: Deep, *, tenant: int = 2, total: int = 3, gateways: int = 1) -> Gate:
    return Gate(
        RateLimits(1000, clock, lambda: gateways),
        QueueDepths(queue, PARTITIONS, 10),  # type: ignore[arg-type]
        tenant_waiting=tenant,
        waiting=total,
        gateways=lambda: gateways,
    )


def test_seats_are_bounded_by_tenant_and_in_all_and_given_back(clock: ManualClock) -> None:
    doors = gate(clock, Deep())
    with ExitStack() as seats:
        seats.enter_context(doors.seat(TENANT))
        seats.enter_context(doors.seat(TENANT))
        with refused("CS_TENANT_INFLIGHT_LIMIT"), doors.seat(TENANT):
            pass
        seats.enter_context(doors.seat(OTHER))
        with refused("CS_QUEUE_FULL"), doors.seat("t_gamma0"):
            pass
        assert doors.seated == 3
    assert doors.seated == 0
    with pytest.raises(RuntimeError), doors.seat(TENANT):
        raise RuntimeError
    assert doors.seated == 0


def test_each_gateway_has_its_part_of_a_tenants_seats_and_one_at_least(clock: ManualClock) -> None:
    doors = gate(clock, Deep(), tenant=2, gateways=5)
    with doors.seat(TENANT), refused("CS_TENANT_INFLIGHT_LIMIT"), doors.seat(TENANT):
        pass


async def test_a_tenant_is_refused_when_all_its_partitions_are_full_and_no_other(clock: ManualClock) -> None:
    queue = Deep()
    depths = QueueDepths(queue, PARTITIONS, 10)  # type: ignore[arg-type]
    own = keys.tenant_partitions(TENANT, PARTITIONS)
    assert set(own) != set(keys.tenant_partitions(OTHER, PARTITIONS))
    queue.ready = {own[0]: 10, own[1]: 9}
    await depths.read()
    depths.check(TENANT)
    queue.ready = dict.fromkeys(own, 10)
    await depths.read()
    with refused("CS_QUEUE_FULL"):
        depths.check(TENANT)
    depths.check(OTHER)


async def test_the_queue_is_read_while_requests_come_and_only_then(clock: ManualClock) -> None:
    queue = Deep()
    depths = QueueDepths(queue, PARTITIONS, 10)  # type: ignore[arg-type]
    queue.ready = dict.fromkeys(keys.tenant_partitions(TENANT, PARTITIONS), 10)
    running = asyncio.create_task(depths.run())
    try:
        await asyncio.sleep(0)
        assert queue.reads == 0
        queue.away = True
        depths.check(TENANT)

        async def told(reads: int) -> bool:
            return queue.reads >= reads

        # A queue that is away says nothing about its depth; the next request has it read again.
        await wait_until(lambda: told(1))
        queue.away = False
        depths.check(TENANT)
        await wait_until(lambda: told(2))
        with refused("CS_QUEUE_FULL"):
            depths.check(TENANT)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
