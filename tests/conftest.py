"""Fixtures that several suites share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

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
