from __future__ import annotations

from collections.abc import Iterator

import pytest

from .servers import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One redis-server a module; `redis_server` hands it out empty and as configured at the start."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def redis_server(server: RedisServer) -> RedisServer:
    server.admin.flushall()
    return server
