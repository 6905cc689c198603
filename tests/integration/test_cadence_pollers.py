"""Several pollers, pollers that die, and bindings that change under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cs_core.errors import UnavailableError
from cs_core.store.cadence_tasks import CadenceTaskStore
from cs_core.store.client import KvClient
from cs_core.store.members import MemberStore
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.worker_index import WorkerIndex
from tests.support.cadence import PARTITIONS, TENANT, CadenceMesh, Call, PollerProcess, actor, cadence_mesh
from tests.support.waiting import wait_until


class Gate:
    """A function that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = 0
        self.open = asyncio.Event()

    async def __call__(self, call: Call) -> Any:
        self.entered += 1
        await self.open.wait()
        return "through"


async def beat_until_cancelled(call: Call) -> Any:
    while not call.cancelled.is_set():
        await call.heartbeat("alive")
        await asyncio.sleep(0.02)
    return "stopped"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def mesh(kv: KvClient, gate: Gate) -> AsyncIterator[CadenceMesh]:
    async with cadence_mesh(kv, {"gate": gate, "beats": beat_until_cancelled}) as mesh:
        yield mesh


async def test_another_poller_answers_for_one_that_was_killed_and_stops_what_it_started(
    mesh: CadenceMesh, gate: Gate, tmp_path: Path
) -> None:
    """Control: with `Takeover.look` doing nothing, neither task is ever answered."""
    await mesh.bind("jobs", {"Gate": "gate", "Beats": "beats"})
    with PollerProcess(mesh, tmp_path) as process:
        run = await mesh.start("jobs", "Gate")
        finishing = asyncio.create_task(run.finish())
        beats = await mesh.start("jobs", "Beats")
        stopping = asyncio.create_task(beats.finish())
        await wait_until(lambda: len(mesh.invoker.runs) == 2, within=40)
        process.kill()
    async with mesh.poller() as (_, registry):
        adopted = {"how": "adopted"}
        await wait_until(lambda: registry.get_sample_value("cs_cadence_tasks_total", adopted) == 2)
        gate.open.set()
        assert (await finishing).how == "completed"
        # Its heartbeats still go to the poller that is gone; the one that adopted it hears them.
        await beats.cancel()
        assert (await stopping).how == "completed"
    assert sorted(mesh.answers.values()) == [[("completed", True)], [("completed", True)]]
    assert set(mesh.invoker.runs.values()) == {1}
    assert await mesh.tasks.count() == 0


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
async def test_a_poller_that_was_thought_dead_answers_nothing_of_what_another_adopted(
    mesh: CadenceMesh, gate: Gate, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """In the control run nobody asks who owns a task, and Cadence must refuse the second answer."""
    beat = MemberStore.beat
    silent: set[str] = set()

    async def maybe_beat(self: MemberStore, instance: str, life: timedelta) -> list[str]:
        if instance in silent:
            raise UnavailableError("CS_STORE_UNAVAILABLE", "cut off")
        return await beat(self, instance, life)

    monkeypatch.setattr(MemberStore, "beat", maybe_beat)
    if not guarded:

        async def everything(self: CadenceTaskStore, record: Any) -> bool:
            return True

        monkeypatch.setattr(CadenceTaskStore, "owns", everything)
    await mesh.bind("jobs", {"Gate": "gate"}, max_inflight_tasks=1)
    async with mesh.poller("first"):
        run = await mesh.start("jobs", "Gate")
        finishing = asyncio.create_task(run.finish())
        await wait_until(lambda: gate.entered == 1)
        silent.add("first")
        async with mesh.poller("second") as (_, registry):
            adopted = {"how": "adopted"}
            await wait_until(lambda: registry.get_sample_value("cs_cadence_tasks_total", adopted) == 1)
            gate.open.set()
            assert (await finishing).how == "completed"
    # Both have drained: whatever was to be answered was.
    assert mesh.accepted() == 1
    assert mesh.refused() == (0 if guarded else 1)


async def test_all_pollers_together_hold_no_more_tasks_than_the_binding_allows(mesh: CadenceMesh, gate: Gate) -> None:
    await mesh.bind("jobs", {"Gate": "gate"}, max_inflight_tasks=3)
    async with mesh.poller("a") as (first, _), mesh.poller("b") as (second, _):

        def polls() -> list[tuple[int, int]]:
            groups = [group for poller in (first, second) for group in poller.reconciler.groups()]
            return sorted((group.permits.total, group.permits.taken) for group in groups)

        # While pollers come and go the sum may be passed; when they know of each other it is not.
        await wait_until(lambda: polls() == [(1, 1), (2, 2)])
        runs = [asyncio.create_task(mesh.run("jobs", "Gate")) for _ in range(8)]
        await wait_until(lambda: mesh.invoker.running == 3)
        waiting = mesh.engine.domain("demo").activities["jobs"]
        await wait_until(lambda: len(waiting) == 5)
        gate.open.set()
        assert {end.how for end in await asyncio.gather(*runs)} == {"completed"}
    assert mesh.invoker.most_running == 3


async def test_a_stopping_poller_hands_its_tasks_over_at_once(mesh: CadenceMesh, gate: Gate) -> None:
    await mesh.bind("jobs", {"Gate": "gate"})
    """Control: with `MemberStore.leave` doing nothing it takes the length of a member's life."""
    life = 12.0
    async with mesh.poller("stays", member_life=life) as (_, registry):
        settings = mesh.settings
        mesh.settings = lambda **cadence: settings(**cadence).model_copy(  # type: ignore[method-assign]
            update={"rpc": settings().rpc.model_copy(update={"drain_grace": 0.0})}
        )
        runs = [asyncio.create_task(mesh.run("jobs", "Gate")) for _ in range(6)]
        async with mesh.poller("leaves", member_life=life) as (leaving, _):
            more = [asyncio.create_task(mesh.run("jobs", "Gate")) for _ in range(20)]
            await wait_until(lambda: leaving.inflight >= 1)
            left = leaving.inflight
        gone = asyncio.get_running_loop().time()
        adopted = {"how": "adopted"}
        await wait_until(lambda: (registry.get_sample_value("cs_cadence_tasks_total", adopted) or 0) >= left)
        assert asyncio.get_running_loop().time() - gone < life * 0.8
        gate.open.set()
        assert {end.how for end in await asyncio.gather(*runs, *more)} == {"completed"}
    assert (mesh.accepted(), mesh.refused()) == (26, 0)


@pytest.mark.parametrize("bell", [True, False], ids=["bell", "lost bell"])
async def test_a_change_is_taken_up_within_two_seconds(
    mesh: CadenceMesh, gate: Gate, monkeypatch: pytest.MonkeyPatch, bell: bool
) -> None:
    if not bell:
        monkeypatch.setattr(MutationBell, "_tell", lambda *_: None)
    gate.open.set()
    loop = asyncio.get_running_loop()
    place = (TENANT, "default", "jobs")
    lists = mesh.engine.domain("demo").activities

    def polled() -> bool:
        return len(lists["jobs"]._polls) > 0  # who waits is nobody else's business

    async with mesh.poller():
        took = []
        for step in ("create", "pause", "resume", "delete"):
            began = loop.time()
            match step:
                case "create":
                    await mesh.bind("jobs", {"Gate": "gate"})
                case "pause":
                    await mesh.bindings.pause(*place, actor())
                case "resume":
                    await mesh.bindings.resume(*place, actor())
                case _:
                    await mesh.bindings.delete(*place, actor())
            wanted = step in ("create", "resume")
            await wait_until(lambda wanted=wanted: polled() is wanted)  # type: ignore[misc]
            took.append(loop.time() - began)
    # The promise is two seconds; a machine that does other things gets twice that.
    assert max(took) < 4.0, took


async def test_a_change_that_is_made_after_its_note_was_looked_at_is_seen(
    mesh: CadenceMesh, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """The writer noted the tenant, a poller looked, and then the change came; its bell was lost."""
    gate.open.set()
    async with mesh.poller():
        await mesh.bind("first", {"Gate": "gate"})
        assert (await mesh.run("first", "Gate")).how == "completed"

        async def nothing(self: WorkerIndex, tenant: str) -> None:
            """The note of this change is that of the binding above."""

        monkeypatch.setattr(WorkerIndex, "note", nothing)
        monkeypatch.setattr(MutationBell, "_tell", lambda *_: None)
        await mesh.bind("jobs", {"Gate": "gate"})
        waiting = mesh.engine.domain("demo").activities["jobs"]
        await wait_until(lambda: len(waiting._polls) > 0)


async def test_a_tenant_without_bindings_leaves_the_index_unless_it_was_noted_lately(kv: KvClient) -> None:
    index = WorkerIndex(kv, PARTITIONS)
    await index.note(TENANT)
    assert await index.forget(TENANT) is False
    assert await index.all() == await index.changed() == {TENANT}
    assert await index.forget(TENANT, kept=timedelta(0)) is True
    assert await index.all() == set()


async def test_a_drained_poller_takes_nothing_new_and_answers_what_it_has(mesh: CadenceMesh, gate: Gate) -> None:
    await mesh.bind("jobs", {"Gate": "gate"})
    waiting = mesh.engine.domain("demo").activities["jobs"]
    async with mesh.poller() as (poller, _):
        first = asyncio.create_task(mesh.run("jobs", "Gate"))
        await wait_until(lambda: poller.inflight == 1)
        await poller.drain(True)
        # Polls that were under way have a moment to end; then nobody waits for tasks.
        await wait_until(lambda: not poller.reconciler.groups() and not waiting._polls)
        second = asyncio.create_task(mesh.run("jobs", "Gate"))
        await wait_until(lambda: len(waiting) == 1)
        gate.open.set()
        assert (await first).how == "completed"
        assert not second.done()
        await poller.drain(False)
        assert (await second).how == "completed"


async def test_a_server_that_goes_away_shows_on_the_binding_and_is_found_again(
    mesh: CadenceMesh, gate: Gate, kv: KvClient
) -> None:
    gate.open.set()
    await mesh.bind("jobs", {"Gate": "gate"})
    place = (TENANT, "default", "jobs")
    away = "127.0.0.1:9"
    async with mesh.poller(target=away):

        async def fails() -> bool:
            found = await mesh.bindings.get(*place)
            return "does not answer" in found.status_message and found.state == 3

        await wait_until(fails)
    found = await mesh.bindings.get(*place)
    assert (found.state, found.status_message) == (1, "no poller has taken it up")
    async with mesh.poller():

        async def works() -> bool:
            found = await mesh.bindings.get(*place)
            return (found.state, found.status_message) == (1, "")

        await wait_until(works)
        assert (await mesh.run("jobs", "Gate")).how == "completed"


async def test_without_a_server_each_binding_says_so(mesh: CadenceMesh) -> None:
    await mesh.bind("jobs", {"Gate": "gate"}, domain="nowhere")
    async with mesh.poller() as (_, registry):

        async def fails() -> bool:
            return "nowhere does not exist" in (await mesh.bindings.get(TENANT, "default", "jobs")).status_message

        await wait_until(fails)
        await wait_until(lambda: registry.get_sample_value("cs_cadence_bindings", {"state": "failing"}) == 1)
        polls = registry.get_sample_value("cs_cadence_polls_total", {"outcome": "failed"}) or 0
        # It backs off: two loops, each a first try and a few more while the state was asked for.
        assert polls < 30
