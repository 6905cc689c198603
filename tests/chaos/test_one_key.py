"""Many submits at once under one idempotency key: one activation, and its result for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from codesous.gateway.v1.activation_pb2 import Activation

from cs_core import ids
from cs_gateway import ingress
from tests.support.front import Front, open_front
from tests.support.invocations import status_of
from tests.support.invoker_pool import PoolProcess
from tests.support.scale import long_test, report

TENANT = "t_alpha0"
SUBMITS = 100
FRONTS = 4
RANDOM = """
export default async () => {
  await new Promise((end) => setTimeout(end, 300));
  return { statusCode: 200, body: crypto.randomUUID() };
};
"""


@asynccontextmanager
async def fronts(url: str) -> AsyncIterator[list[Front]]:
    """Several gateways and two invokers."""
    # A message too many waits until the end of the lease that it found.
    settings = {
        "invoker": {"partition_share": 1.0, "activation_lease": 3.0},
        "codeq": {"lease": 4.0},
        "sandbox": {"cells": 8, "cells_per_tenant": 8},
    }
    async with AsyncExitStack() as stack:
        pool = [PoolProcess(url, settings) for _ in range(2)]
        await asyncio.gather(*(stack.enter_async_context(process) for process in pool))
        yield [await stack.enter_async_context(open_front(url)) for _ in range(FRONTS)]


async def submit_all(gateways: list[Front]) -> list[Activation]:
    ref = await gateways[0].deploy(TENANT, "random", RANDOM, timeout=20)
    calls = [gateways[n % FRONTS].invoke(ref, {"order": 1}, idempotency_key="order-1") for n in range(SUBMITS)]
    # One that comes after the end gets the same.
    return [*await asyncio.gather(*calls), await gateways[0].invoke(ref, {"order": 1}, idempotency_key="order-1")]


@long_test
async def test_one_key_is_one_activation_and_one_result_for_all(redis_url: str) -> None:
    async with fronts(redis_url) as gateways:
        answers = await submit_all(gateways)
        await gateways[0].emptied()
        records = await gateways[0].ids()
        (record,) = [await gateways[0].store.get(TENANT, name) for name in records]
    assert record is not None
    report("one key", submits=SUBMITS, activations=len(records), attempts=record.attempt)
    assert {answer.activation_id for answer in answers} == set(records)
    assert {(status_of(answer), answer.response.body) for answer in answers} == {("SUCCESS", record.response.body)}
    assert record.attempt == 1


@long_test
async def test_without_ids_from_keys_each_submit_is_an_activation(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingress.ids, "activation_id_from", lambda *_: ids.activation_id())
    async with fronts(redis_url) as gateways:
        answers = await submit_all(gateways)
    assert len({answer.activation_id for answer in answers}) > 1
