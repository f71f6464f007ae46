"""Rate limits: exactly as many as promised, in one process, in several, and while Redis comes and goes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.storage.servers import FaultProxy, RedisServer

from maru.auth.limits import RateLimiter, RateLimitState, headers
from maru.auth.principal import RateLimited
from maru.storage.redis import Breaker, connect


async def let_in(limiter: RateLimiter, caller: str) -> bool:
    try:
        await limiter.check(caller)
    except RateLimited:
        return False
    return True


async def count(limiter: RateLimiter, caller: str, requests: int) -> int:
    """How many of so many parallel requests are let in."""
    return sum(await asyncio.gather(*(let_in(limiter, caller) for _ in range(requests))))


@asynccontextmanager
async def breaker(url: str) -> AsyncIterator[Breaker]:
    made = Breaker(connect(url), probe_every_s=0.1)
    try:
        yield made
    finally:
        await made.aclose()


# In one process


def test_the_limit_is_exact_and_each_caller_has_their_own() -> None:
    async def scenario() -> None:
        limiter = RateLimiter(10)
        assert await count(limiter, "a", 200) == 10
        assert await count(limiter, "b", 3) == 3
        assert await count(limiter, "b", 200) == 7

    asyncio.run(scenario())


def test_headers_are_structured_fields() -> None:
    assert headers(RateLimitState(10, 60, 7, 41.2)) == {
        "RateLimit-Policy": '"default";q=10;w=60',
        "RateLimit": '"default";r=7;t=42',
    }
    assert headers(RateLimited(10, 60, 0.001)) == {
        "RateLimit-Policy": '"default";q=10;w=60',
        "RateLimit": '"default";r=0;t=1',
        "Retry-After": "1",
    }


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 5, "window_s": 0}])
def test_a_limit_that_makes_no_sense_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RateLimiter(**wrong)


def test_what_is_told_is_true() -> None:
    async def scenario() -> None:
        limiter = RateLimiter(3, window_s=1)
        states = [await limiter.check("a") for _ in range(3)]
        assert [state.remaining for state in states] == [2, 1, 0]
        with pytest.raises(RateLimited) as refusal:
            await limiter.check("a")
        assert 0 < refusal.value.reset_s <= 1
        for _ in range(5):  # a refusal costs nothing
            assert not await let_in(limiter, "a")
        await asyncio.sleep(refusal.value.reset_s + 0.02)
        assert await let_in(limiter, "a")

    asyncio.run(scenario())


def test_in_no_window_are_there_more() -> None:
    """A window that jumped from second to second would let twice as many through where two meet."""

    async def scenario() -> None:
        limiter = RateLimiter(10, window_s=1)
        times = []
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            if await let_in(limiter, "a"):
                times.append(time.monotonic())
            await asyncio.sleep(0.005)
        assert 20 <= len(times) <= 30
        for first in times:
            assert sum(first <= moment < first + 0.95 for moment in times) <= 10

    asyncio.run(scenario())


def test_callers_who_are_silent_are_forgotten() -> None:
    async def scenario() -> None:
        limiter = RateLimiter(10, window_s=1)
        for i in range(500):
            await limiter.check(f"user:{i}")
        async with asyncio.timeout(10):
            n = 0
            while len(limiter._here.storage.events) > 100:
                n += 1
                await asyncio.sleep(0.05)
                await limiter.check(f"another:{n}")

    asyncio.run(scenario())


# In several processes, through Redis

WORKER = """
import asyncio, sys
from maru.auth.limits import RateLimiter
from maru.auth.principal import RateLimited
from maru.storage.redis import Breaker, connect

async def main():
    breaker = Breaker(connect(sys.argv[1], timeout_s=20.0), timeout_s=20.0)
    limiter = RateLimiter(40, breaker=breaker)
    async def one(caller):
        try:
            await limiter.check(caller)
            return 1
        except RateLimited:
            return 0
    await breaker.call(lambda redis: redis.ping())
    print("ready", flush=True)
    sys.stdin.readline()
    let_in = [sum(await asyncio.gather(*(one(caller) for _ in range(60)))) for caller in ("a", "b", "c")]
    print(*let_in, limiter.degraded, flush=True)
    await breaker.aclose()

asyncio.run(main())
"""


def test_four_processes_let_in_exactly_the_limit_between_them(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()
    command = [sys.executable, "-c", WORKER, redis_server.url]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    lines = [worker.communicate(timeout=30)[0].split() for worker in workers]
    sums = [sum(int(line[place]) for line in lines) for place in range(4)]
    assert sums == [40, 40, 40, 0], lines
    assert all(worker.returncode == 0 for worker in workers)


def test_what_redis_tells_is_what_this_process_would_tell(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            one, other = RateLimiter(3, breaker=way), RateLimiter(3, breaker=way)
            states = [await one.check("a"), await other.check("a"), await one.check("a")]
            assert [state.remaining for state in states] == [2, 1, 0]
            assert all(59 < state.reset_s <= 60 for state in states)
            with pytest.raises(RateLimited) as refusal:
                await other.check("a")
            assert 59 < refusal.value.reset_s <= 60

    asyncio.run(scenario())


def test_redis_holds_no_name_and_forgets_in_time(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            limiter = RateLimiter(2, window_s=1, breaker=way)
            name = "user:123e4567-e89b-12d3-a456-426614174000\n*"
            assert await count(limiter, name, 10) == 2
            (key,) = redis_server.admin.keys("*")
            assert key.startswith(b"maru:limit:") and b"123e4567" not in key
            assert redis_server.admin.llen(key) == 2
            assert 0 < redis_server.admin.pttl(key) <= 2000
            async with asyncio.timeout(5):
                while redis_server.admin.exists(key):
                    await asyncio.sleep(0.01)
            assert await count(limiter, name, 10) == 2

    asyncio.run(scenario())


def test_in_no_window_are_there_more_by_the_clock_of_redis_either(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            limiters = [RateLimiter(5, window_s=1, breaker=way) for _ in range(3)]
            times: list[float] = []
            until = time.monotonic() + 2.5
            i = 0
            while time.monotonic() < until:
                i += 1
                began = time.monotonic()
                if await let_in(limiters[i % 3], "a"):
                    times.append((began + time.monotonic()) / 2)
                await asyncio.sleep(0.005)
            assert sum(limiter.degraded for limiter in limiters) == 0
            assert 10 <= len(times) <= 15
            for first in times:
                assert sum(first <= moment < first + 0.9 for moment in times) <= 5

    asyncio.run(scenario())


# Without Redis


@pytest.mark.parametrize("fault", ["refused", "hole", "slow", "reset", "cut", "garbage", "wrong kind"])
def test_while_redis_is_away_requests_are_counted_here(fault: str, redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy, breaker(proxy.url) as way:
            limiter = RateLimiter(10, breaker=way)
            assert await count(limiter, "before", 4) == 4
            if fault == "refused":
                await proxy.refuse()
            elif fault == "wrong kind":
                (key,) = redis_server.admin.keys("*")
                redis_server.admin.set(key, b"not a list")
            else:
                proxy.fault = fault
            caller = "before" if fault == "wrong kind" else "during"
            began = time.monotonic()
            lags = await lags_during(asyncio.create_task(count_in_a_row(limiter, caller, 200)))
            assert time.monotonic() - began < 1.5
            assert max(lags) < 0.5
            if fault != "wrong kind":  # what was let in before the fault still counts
                assert await count(limiter, "before", 50) == 6
            assert limiter.degraded > 0
            assert not await let_in(limiter, caller)
            if fault == "refused":
                await proxy.listen()
            proxy.fault = ""
            degraded = -1
            async with asyncio.timeout(10):
                i = 0
                while degraded != limiter.degraded:  # until one is judged by Redis again
                    degraded, i = limiter.degraded, i + 1
                    await limiter.check(f"after:{i}")
                    await asyncio.sleep(0.02)
            assert not await let_in(limiter, caller)

    asyncio.run(scenario())


async def count_in_a_row(limiter: RateLimiter, caller: str, requests: int) -> None:
    before = 4 if caller == "before" else 0
    passed = 0
    for _ in range(requests):
        passed += await let_in(limiter, caller)
        await asyncio.sleep(0)
    assert passed == 10 - before


async def lags_during(work: asyncio.Task[None]) -> list[float]:
    lags = [0.0]
    while not work.done():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - began - 0.01)
    await work
    return lags


def test_a_caller_who_left_while_redis_was_asked_is_counted_once_at_most(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            limiter = RateLimiter(10, breaker=way)
            await limiter.check("a")
            leaving = [asyncio.create_task(limiter.check("a")) for _ in range(4)]
            await asyncio.sleep(0)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            assert 5 <= await count(limiter, "a", 50) <= 9

    asyncio.run(scenario())
