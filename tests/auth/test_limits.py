"""Rate limits: exactly as many as promised, in one process, in several, and while Redis comes and goes."""

from __future__ import annotations

import asyncio
import re
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

from .hand_clock import HandClock


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


def test_the_limit_is_exact_and_each_caller_has_their_own(clock: HandClock) -> None:
    async def scenario() -> None:
        limiter = RateLimiter(10, clock=clock)
        assert await count(limiter, "a", 200) == 10
        assert await count(limiter, "b", 3) == 3
        assert await count(limiter, "b", 200) == 7

    asyncio.run(scenario())


def test_in_no_minute_are_there_more(clock: HandClock) -> None:
    """A window that jumped from minute to minute would let twice as many through where two meet."""

    async def scenario() -> None:
        limiter = RateLimiter(10, clock=clock)
        times = []
        for _ in range(3000):
            clock.now += 0.1
            if await let_in(limiter, "a"):
                times.append(clock.now)
        assert len(times) == 50
        for first in times:
            assert sum(first <= moment < first + 60 for moment in times) <= 10

    asyncio.run(scenario())


def test_what_is_told_is_true(clock: HandClock) -> None:
    async def scenario() -> None:
        limiter = RateLimiter(3, clock=clock)
        told = []
        for _ in range(3):
            told.append(await limiter.check("a"))
            clock.now += 7
        assert told == [RateLimitState(3, 60, left, reset) for left, reset in ((2, 60), (1, 53), (0, 46))]
        with pytest.raises(RateLimited) as refusal:
            await limiter.check("a")
        assert (refusal.value.limit, refusal.value.window_s, refusal.value.reset_s) == (3, 60, 39)
        for _ in range(5):  # a refusal costs nothing
            assert not await let_in(limiter, "a")
        clock.now += 38.9
        assert not await let_in(limiter, "a")
        clock.now += 0.1
        assert await let_in(limiter, "a")

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


def test_who_obeys_retry_after_is_let_in(clock: HandClock) -> None:
    async def scenario() -> None:
        limiter = RateLimiter(5, clock=clock)
        for _ in range(40):
            clock.now += 1.3
            try:
                await limiter.check("a")
            except RateLimited as refusal:
                clock.now += int(headers(refusal)["Retry-After"])
                assert await let_in(limiter, "a")

    asyncio.run(scenario())


def test_remaining_falls_by_one_and_the_time_told_is_within_the_window(clock: HandClock) -> None:
    async def scenario() -> None:
        limiter = RateLimiter(20, clock=clock)
        for expected in range(19, -1, -1):
            clock.now += 0.5
            fields = headers(await limiter.check("a"))
            match = re.fullmatch(r'"default";r=(\d+);t=(\d+)', fields["RateLimit"])
            assert match and int(match[1]) == expected and 1 <= int(match[2]) <= 60

    asyncio.run(scenario())


def test_memory_is_bounded_however_many_come(clock: HandClock) -> None:
    async def scenario() -> None:
        limiter = RateLimiter(10, clock=clock, max_principals=1000)
        for i in range(20_000):
            await limiter.check(f"user:{i}")
        assert len(limiter._seen) == 1000
        clock.now += 61
        await limiter.check("user:0")
        assert len(limiter._seen) == 1  # who has been silent for a window is forgotten

    asyncio.run(scenario())


def test_the_callers_of_the_moment_are_not_those_forgotten(clock: HandClock) -> None:
    async def scenario() -> None:
        limiter = RateLimiter(10, clock=clock, max_principals=100)
        for i in range(90):
            await limiter.check(f"other:{i}")
        assert await count(limiter, "a", 20) == 10
        for i in range(95):
            await limiter.check(f"more:{i}")
        assert not await let_in(limiter, "a")

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 5, "alone": 0}, {"limit": 5, "alone": 6}])
def test_a_limit_that_makes_no_sense_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RateLimiter(**wrong)


def test_judging_in_this_process_never_leaves_the_event_loop() -> None:
    limiter = RateLimiter(10)
    with pytest.raises(StopIteration):
        limiter.check("a").send(None)


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


def test_a_refusal_by_redis_costs_nothing_here_either(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            one, other = RateLimiter(5, breaker=way), RateLimiter(5, breaker=way)
            assert await count(one, "a", 5) == 5
            assert await count(other, "a", 50) == 0
            redis_server.admin.flushall()  # as if the minute were over
            assert await count(other, "a", 50) == 5

    asyncio.run(scenario())


def test_redis_holds_no_name_and_forgets_in_time(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            limiter = RateLimiter(2, window_s=1, breaker=way)
            name = "user:123e4567-e89b-12d3-a456-426614174000\n*"
            assert await count(limiter, name, 10) == 2
            (key,) = redis_server.admin.keys("*")
            assert key.startswith(b"maru:limit:1:") and b"123e4567" not in key
            assert redis_server.admin.llen(key) == 2
            assert 0 < redis_server.admin.pttl(key) <= 1000
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


def test_in_redis_too_only_what_left_the_window_makes_room(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            await RateLimiter(4, breaker=way).check("a")
            (key,) = redis_server.admin.keys("*")
            redis_server.admin.delete(key)
            for seconds_ago in (61, 60, 30, 20, 10):
                redis_server.admin.lpush(key, int((time.time() - seconds_ago) * 1e6))
            state = await RateLimiter(4, breaker=way).check("a")
            assert state.remaining == 0 and 25 < state.reset_s <= 30
            assert await count(RateLimiter(4, breaker=way), "a", 10) == 0

    asyncio.run(scenario())


def test_a_redis_clock_that_is_set_back_locks_nobody_out(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            await RateLimiter(2, breaker=way).check("a")
            (key,) = redis_server.admin.keys("*")
            redis_server.admin.delete(key)
            in_an_hour = int((time.time() + 3600) * 1e6)
            redis_server.admin.lpush(key, in_an_hour, in_an_hour)
            assert await count(RateLimiter(2, breaker=way), "a", 10) == 2

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


def test_callers_beyond_what_is_kept_are_served_while_redis_fails(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy, breaker(proxy.url) as way:
            limiter = RateLimiter(2, breaker=way, max_principals=5)
            proxy.fault = "hole"
            answers = await asyncio.gather(*(limiter.check(f"user:{i}") for i in range(50)))
            assert {answer.remaining for answer in answers} == {1}

    asyncio.run(scenario())


def test_alone_each_process_lets_in_its_share(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy, breaker(proxy.url) as way:
            await proxy.refuse()
            workers = [RateLimiter(10, breaker=way, alone=2) for _ in range(4)]
            assert sum([await count(worker, "alone", 50) for worker in workers]) == 8
            with pytest.raises(RateLimited) as refusal:
                await workers[0].check("alone")
            assert 59 < refusal.value.reset_s <= 60

    asyncio.run(scenario())


def test_the_time_told_while_alone_is_when_there_is_room(redis_server: RedisServer, clock: HandClock) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy, breaker(proxy.url) as way:
            limiter = RateLimiter(10, breaker=way, alone=2, clock=clock)
            for _ in range(4):
                await limiter.check("a")
                clock.now += 10
            await proxy.refuse()
            with pytest.raises(RateLimited) as refusal:
                await limiter.check("a")
            # Let in 40, 30, 20 and 10 s ago: the third oldest must leave before fewer than two are left.
            assert refusal.value.reset_s == 40
            clock.now += 40
            assert await let_in(limiter, "a")

    asyncio.run(scenario())


def test_what_redis_forgets_this_process_knows(redis_server: RedisServer) -> None:
    redis_server.admin.flushall()

    async def scenario() -> None:
        async with breaker(redis_server.url) as way:
            limiter = RateLimiter(10, breaker=way)
            passed = 0
            for _ in range(30):
                passed += await count(limiter, "a", 7)
                redis_server.admin.flushall()
            assert passed == 10

    asyncio.run(scenario())
