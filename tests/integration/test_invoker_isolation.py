"""The isolation level of a version, from its configuration to its cells."""

from __future__ import annotations

import json

import pytest
from codesous.runtime.v1.version_config_pb2 import IsolationLevel

from cs_core.store.client import KvClient
from tests.support.invocations import Ingress
from tests.support.invokers import make_settings, running_invoker

COUNT = "let count = 0; export default () => (count += 1)"


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (IsolationLevel.ISOLATION_LEVEL_UNSPECIFIED, [1, 1, 1]),
        (IsolationLevel.ISOLATION_LEVEL_ACTIVATION, [1, 1, 1]),
        (IsolationLevel.ISOLATION_LEVEL_VERSION, [1, 2, 3]),
    ],
    ids=["not set", "activation", "version"],
)
async def test_the_level_decides_what_is_kept_between_activations(
    kv: KvClient, redis_url: str, level: IsolationLevel.ValueType, expected: list[int]
) -> None:
    ingress = Ingress(kv)
    ref = await ingress.put_version("counter", COUNT, isolation=level)
    other = await ingress.put_version("twin", COUNT, isolation=level, env={"SOME": "thing"})
    async with running_invoker(make_settings(redis_url)):
        bodies = [json.loads((await ingress.ended(await ingress.invoke(ref))).response.body) for _ in range(3)]
        # Another function with the very same bundle has a state of its own.
        twin = json.loads((await ingress.ended(await ingress.invoke(other))).response.body)
    assert bodies == expected
    assert twin == 1
