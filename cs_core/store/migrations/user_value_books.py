"""3: values that functions kept before there were quotas are put into the books of their tenants.

A value that is in no book counts for nothing, so a tenant could keep more than its quota; and its key, once removed,
would count as one for ever.
"""

from __future__ import annotations

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.migrations.step import Step
from cs_core.store.scripts import load_script

_BOOK = load_script("cs_core.store", "book_user_value")
_VALUE = ":kv:v:"
_PAGE = 500


async def _change(client: KvClient, key: str, *, dry: bool) -> int:
    tenant = key.partition("{")[2].partition("}")[0]
    head, found, name = key.partition(_VALUE)
    if found and head == f"cs:{{{tenant}}}":
        return await _book(client, tenant, name, dry=dry)
    if key != keys.user_keys(tenant):
        return 0
    # Names whose values are gone: the server expired them.
    changed, lowest = 0, "-"
    while names := await client.call("ZRANGEBYLEX", key, lowest, "+", "LIMIT", 0, _PAGE):
        for raw in names:
            if not await client.call("EXISTS", keys.user_value(tenant, raw.decode())):
                changed += await _book(client, tenant, raw.decode(), dry=dry)
        lowest = f"({names[-1].decode()}"
    return changed


async def _book(client: KvClient, tenant: str, name: str, *, dry: bool) -> int:
    books = [
        keys.user_value(tenant, name),
        keys.user_keys(tenant),
        keys.user_sizes(tenant),
        keys.user_expiries(tenant),
        keys.user_bytes(tenant),
    ]
    return int(await client.script(_BOOK, books, [name, 0 if dry else 1]))


STEP = Step(
    version=3,
    title="put the values that functions keep into the books of their tenants' quotas",
    prefix="cs:{t_",
    infix="}:kv:",
    change=_change,
)
