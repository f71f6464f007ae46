from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .postgres import TIMESCALE, PostgresServer, has_timescale
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


@pytest.fixture(scope="session")
def timescale() -> Iterator[PostgresServer]:
    """One with TimescaleDB."""
    with PostgresServer(**TIMESCALE) as running:
        yield running


KINDS = ["sqlite", "postgresql", *(["timescale"] if has_timescale() else [])]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind that there is here."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/maru.db"
    server: PostgresServer = request.getfixturevalue({"postgresql": "postgres"}.get(request.param, request.param))
    return server.database()
