"""1: tenants whose mutations were logged before there was a relay are listed for it.

A commit lists its tenant; a tenant that changes nothing any more was never listed, and what it changed before would
never reach the ledger.
"""

from __future__ import annotations

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.migrations.step import Step
from cs_core.store.relay import RelayStore, list_for_relay


async def _change(client: KvClient, key: str, *, dry: bool) -> int:
    tenant = key.partition("{")[2].partition("}")[0]
    if key != keys.mutations(tenant):
        return 0
    listed = await client.call("HGET", keys.relay_state(tenant), "listed")
    if listed is not None or not await RelayStore(client).waiting(tenant, 1):
        return 0
    if not dry:
        await list_for_relay(client, tenant)
    return 1


STEP = Step(
    version=1,
    title="list tenants whose mutations wait for the relay",
    prefix="cs:{t_",
    infix="}:mutations",
    change=_change,
)
