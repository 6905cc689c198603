"""Fixtures that several suites share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from _pytest.nodeid import coerce_node_id

from cs_core.store.client import KvClient
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def _redis_session() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(_redis_session: RedisServer) -> str:
    """The address of a real, empty redis-server."""
    _redis_session.flush()
    return _redis_session.url


@pytest.fixture
async def kv(redis_url: str) -> AsyncIterator[KvClient]:
    """A client of a real, empty redis-server."""
    client = KvClient(redis_url)
    yield client
    await client.close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a group in one worker.

    A worker tells groups by the ends of ids. pytest-xdist 3.8 writes them where pytest 9.2 no longer reads them.
    """
    if config.getoption("loadgroup", default=False):
        for item in items:
            for mark in item.iter_markers("xdist_group"):
                if not item.nodeid.endswith(f"@{mark.args[0]}"):
                    item._id = coerce_node_id(f"{item.nodeid}@{mark.args[0]}")
