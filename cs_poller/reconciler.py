"""Keeps the loop groups of this process in step with the worker bindings of all tenants and with who else polls.

Theory of operation. What tells of a change (a bell, a note in the index, a member that came or went) only says where
to look; a look compares what is stored with what runs, so it may be repeated, late, or one too many. Tenants that were
noted lately are looked at every second, which covers a lost bell and a change that was made after its note; all tenants
are looked at once a minute, which covers everything else. A binding that cannot be served takes nothing from another:
each has loops, permits and waits of its own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta

import structlog
from codesous.control.v1.worker_binding_pb2 import WorkerBinding, WorkerBindingState

from cs_core.errors import UnavailableError
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.worker_bindings import WorkerBindingStore
from cs_core.store.worker_index import WorkerIndex

from .group import Group
from .membership import Membership
from .shares import share_of

_log = structlog.get_logger(__name__)
EVERY = timedelta(seconds=1)
ALL_EVERY = timedelta(minutes=1)
_PAUSED = WorkerBindingState.WORKER_BINDING_STATE_PAUSED


class Reconciler:
    """Starts, changes and stops groups. `make_group` makes one that does not poll yet."""

    def __init__(
        self,
        bell: MutationBell,
        index: WorkerIndex,
        bindings: WorkerBindingStore,
        membership: Membership,
        make_group: Callable[[WorkerBinding, int], Group],
        every: timedelta = EVERY,
        all_every: timedelta = ALL_EVERY,
    ) -> None:
        self._bell = bell
        self._index = index
        self._bindings = bindings
        self._membership = membership
        self._make_group = make_group
        self._every = every.total_seconds()
        self._all_every = all_every.total_seconds()
        self._groups: dict[str, dict[str, Group]] = defaultdict(dict)
        self._rung: set[str] = set()
        self._look_at_all = True
        self._draining = False
        self._wake = asyncio.Event()

    def groups(self) -> list[Group]:
        """Every group of this process."""
        return [group for groups in self._groups.values() for group in groups.values()]

    def find(self, tenant: str, uid: str) -> Group | None:
        """The group of a binding; None when this process has none."""
        return self._groups.get(tenant, {}).get(uid)

    def look_at_all(self) -> None:
        """Look at all tenants, soon."""
        self._look_at_all = True
        self._wake.set()

    def drain(self, draining: bool) -> None:
        """Poll for nothing, or for everything again. Tasks in flight are not touched."""
        self._draining = draining
        self.look_at_all()

    async def run(self) -> None:
        """Keep in step until cancelled, then stop every group."""
        try:
            async with self._bell.running():
                with self._bell.telling(self._ring):
                    await self._keep_in_step()
        finally:
            await asyncio.gather(*(group.stop() for group in self.groups()))

    async def _keep_in_step(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at_all = loop.time()
        while True:
            if loop.time() - looked_at_all > self._all_every:
                self._look_at_all = True
            if self._look_at_all:
                looked_at_all = loop.time()
            await self._look()
            try:
                async with asyncio.timeout(self._every):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _ring(self, tenant: str | None) -> None:
        if tenant is None:
            self.look_at_all()
        else:
            self._rung.add(tenant)
            self._wake.set()

    async def _look(self) -> None:
        self._wake.clear()
        rung, self._rung = self._rung, set()
        everything, self._look_at_all = self._look_at_all, False
        try:
            known = set(self._groups)
            tenants = known | await self._index.all() if everything else rung | await self._index.changed()
            for tenant in sorted(tenants):
                await self._guard(tenant, everything)
        except UnavailableError as error:
            _log.info("did not look at worker bindings", error=error.message)
            self._rung |= rung
            self._look_at_all = self._look_at_all or everything

    async def _guard(self, tenant: str, tidy: bool) -> None:
        try:
            await self._apply(tenant, tidy)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - what is wrong with one tenant's bindings must not stop the others'
            _log.exception("worker bindings could not be read", tenant=tenant)

    async def _apply(self, tenant: str, tidy: bool) -> None:
        stored = await self._bindings.list_all(tenant)
        if tidy and not stored:
            await self._index.forget(tenant)
        polled = [binding for binding in stored if binding.state != _PAUSED and not self._draining]
        wanted = {binding.uid: binding for binding in polled}
        groups = self._groups[tenant]
        for uid in [uid for uid in groups if uid not in wanted]:
            group = groups.pop(uid)
            _log.info("polls no more", tenant=tenant, worker=group.binding.worker)
            await group.stop()
        for uid, binding in wanted.items():
            share = share_of(uid, binding.spec.max_inflight_tasks, self._membership.instance, self._membership.members)
            if uid in groups:
                await groups[uid].update(binding, share)
            else:
                _log.info("polls", tenant=tenant, worker=binding.worker, share=share)
                groups[uid] = self._make_group(binding, share)
                groups[uid].start()
        if not groups:
            del self._groups[tenant]
