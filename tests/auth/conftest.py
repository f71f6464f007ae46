from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.storage.servers import RedisServer

from .hand_clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1000.0)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running
