from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from maru.storage.benchmark_board import MOST_SAMPLES, TTL_S, Board
from maru.storage.redis import Breaker, connect

from .servers import RedisServer

T = TypeVar("T")


def on(server: RedisServer, work: Callable[[Board], Awaitable[T]]) -> T:
    async def within() -> T:
        breaker = Breaker(connect(server.url))
        try:
            return await work(Board(breaker))
        finally:
            await breaker.aclose()

    return asyncio.run(within())


def test_the_last_word_and_the_latest_samples(redis_server: RedisServer) -> None:
    async def work(board: Board) -> None:
        for number in range(MOST_SAMPLES + 20):
            await board.tell("b1", {"done": number}, {"cpu": number})
        assert await board.progress("b1") == {"done": MOST_SAMPLES + 19}
        assert await board.samples("b1") == [{"cpu": number} for number in range(20, MOST_SAMPLES + 20)]
        assert await board.progress("b2") is None and await board.samples("b2") == []
        await board.tell("b2", {"done": 0}, None)
        assert await board.samples("b2") == []

    on(redis_server, work)
    for key in redis_server.admin.keys("maru:benchmark:*"):
        assert 0 < redis_server.admin.ttl(key) <= TTL_S, "what nobody tells any more is forgotten"


def test_what_is_not_ours_is_not_known(redis_server: RedisServer) -> None:
    async def work(board: Board) -> None:
        for word in (b"", b"{", b"7", b"[1]", b"\xff"):
            redis_server.admin.set("maru:benchmark:b1", word)
            assert await board.progress("b1") is None
        redis_server.admin.lpush("maru:benchmark:b1:samples", b"nonsense", b'{"cpu": 1}')
        assert await board.samples("b1") == [{"cpu": 1}]
        redis_server.admin.set("maru:benchmark:b2:samples", b"a string, and not a list")
        assert await board.samples("b2") == []

    on(redis_server, work)


def test_without_redis_nothing_is_told_and_nothing_fails() -> None:
    async def work(board: Board) -> None:
        await board.tell("b1", {"done": 1}, {"cpu": 1})
        assert await board.progress("b1") is None
        assert await board.samples("b1") == []

    with RedisServer() as server:
        server.kill()
        on(server, work)
