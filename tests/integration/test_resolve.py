"""What a ref means is asked anew each time: a change of the control plane is seen by the very next request."""

from __future__ import annotations

import pytest

from cs_core.errors import NotFoundError
from cs_core.store.client import KvClient
from cs_core.store.resolve import Resolver
from tests.integration.test_control import ACTOR, NAME, SPACE, TENANT, Control


async def test_a_moved_alias_a_deleted_function_and_one_brought_back_are_seen_at_once(kv: KvClient) -> None:
    control, resolver = Control(kv), Resolver(kv)
    await control.create()

    async def live() -> int:
        return (await resolver.resolve(TENANT, SPACE, NAME, "live")).version

    await control.version("live")
    assert await live() == 1
    await control.version("live", b"export default () => 2")
    assert await live() == 2
    await control.set_alias("live", 1)
    assert await live() == 1
    await control.functions.delete(TENANT, SPACE, NAME, ACTOR)
    for ref in ("live", "1"):
        with pytest.raises(NotFoundError):
            await resolver.resolve(TENANT, SPACE, NAME, ref)
    await control.functions.undelete(TENANT, SPACE, NAME, ACTOR)
    assert await live() == 1
    await control.aliases.delete(TENANT, SPACE, NAME, "live", ACTOR)
    with pytest.raises(NotFoundError):
        await live()
