"""An activation that shares a cell with one that brings it down is run again, and no crash is counted against it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from cs_core.codeq.contract import INVOKE
from cs_core.store.client import KvClient
from cs_invoker.cells import list_cells
from cs_sandbox import CellPool, Outcome, PoolSettings
from tests.support.invocations import Ingress, status_of
from tests.support.invokers import make_settings, running_invoker
from tests.support.waiting import wait_until

INNOCENT = """export default async (event, ctx) => {
  await new Promise((end) => setTimeout(end, ctx.attempt === 1 ? 20000 : 10));
  return ctx.attempt;
}"""
POISON = """export default async () => {
  await new Promise((end) => setTimeout(end, 100));
  const a = []; a.length = 2 ** 32 - 1; return a.join("");
}"""


@pytest.mark.parametrize("told", [True, False], ids=["told apart", "control: not told apart"])
async def test_neighbours_of_a_run_that_kills_their_cell_are_run_again(
    kv: KvClient, redis_url: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:
        original = CellPool.run

        async def run(*arguments: object, **options: object) -> Outcome:
            return replace(await original(*arguments, **options), bystander=False)  # type: ignore[arg-type]

        monkeypatch.setattr(CellPool, "run", run)
    settings = make_settings(redis_url)
    # One crash is enough to be given up.
    settings = settings.model_copy(update={"codeq": settings.codeq.model_copy(update={"max_deliveries": 1})})
    ingress = Ingress(kv)
    innocent = await ingress.put_version("innocent", INNOCENT, timeout=timedelta(seconds=25))
    poison = await ingress.put_version("poison", POISON, timeout=timedelta(seconds=1))
    registry = CollectorRegistry()
    async with (
        CellPool(PoolSettings(cells_max=1, spare_cells=0)) as pool,
        running_invoker(settings, pool=pool, registry=registry),
    ):
        neighbours = [await ingress.invoke(innocent) for _ in range(2)]
        await wait_until(lambda: [cell.live_runs for cell in list_cells(pool) if cell.tenant] == [2])
        culprit = await ingress.invoke(poison)
        assert status_of(await ingress.ended(culprit)) == "TIMEOUT"
        for activation in neighbours:
            record = await ingress.ended(activation)
            if told:
                assert (status_of(record), record.attempt, json.loads(record.response.body)) == ("SUCCESS", 2, 2)
            else:
                assert (status_of(record), record.error.reason) == ("ERROR", "CS_RUNTIME_CRASH")
        await ingress.emptied()
    assert registry.get_sample_value("cs_invoker_bystanders_total") == (2 if told else 0)
    assert len(await ingress.queue.list_dead_letters(INVOKE, limit=10)) == (0 if told else 2)
