from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .postgres import PostgresServer
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that don't stop it."""
    with PostgresServer() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/maru.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.database()
