"""The breaker, against a real Redis behind a proxy with every fault a network or a server has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from maru.storage.redis import Breaker, Unavailable, connect

from .servers import FaultProxy, RedisServer

PROBE_S = 0.2


@dataclass
class Stand:
    """A Redis, the proxy before it, and a breaker on the proxy."""

    server: RedisServer
    proxy: FaultProxy
    breaker: Breaker
    lags: list[float] = field(default_factory=list)

    async def ask(self) -> bytes | None:
        async def get(redis: Redis) -> bytes | None:
            await redis.set("maru:test", b"x")
            return await redis.get("maru:test")  # type: ignore[return-value]

        return await self.breaker.call(get)

    async def lost(self, calls: int) -> float:
        """Seconds that so many calls in a row take, none of which gets an answer."""
        began = time.monotonic()
        for _ in range(calls):
            with pytest.raises(Unavailable):
                await self.ask()
            await asyncio.sleep(0)
        return time.monotonic() - began

    async def answered(self) -> None:
        """Ask until there is an answer again."""
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await self.ask() == b"x"
                    return
                except Unavailable:
                    await asyncio.sleep(0.01)

    async def tick(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.lags.append(time.monotonic() - began - 0.01)


@asynccontextmanager
async def stand(server: RedisServer) -> AsyncIterator[Stand]:
    async with FaultProxy(server.socket) as proxy:
        breaker = Breaker(connect(proxy.url), probe_every_s=PROBE_S)
        it = Stand(server, proxy, breaker)
        ticker = asyncio.create_task(it.tick())
        try:
            yield it
        finally:
            ticker.cancel()
            await breaker.aclose()


Fault = Callable[[Stand], Awaitable[None]]


def by_proxy(fault: str, line: bytes = b"") -> tuple[Fault, Fault]:
    async def begin(it: Stand) -> None:
        it.proxy.fault, it.proxy.line = fault, line

    async def end(it: Stand) -> None:
        it.proxy.fault = ""

    return begin, end


def by_config(**settings: str) -> tuple[Fault, Fault]:
    before: dict[str, str] = {}

    async def begin(it: Stand) -> None:
        for name, value in settings.items():
            name = name.replace("_", "-")
            before[name] = it.server.admin.config_get(name)[name]
            it.server.admin.config_set(name, value)

    async def end(it: Stand) -> None:
        for name, value in before.items():
            it.server.admin.config_set(name, value)

    return begin, end


async def refuse(it: Stand) -> None:
    await it.proxy.refuse()


async def listen(it: Stand) -> None:
    await it.proxy.listen()


async def kill(it: Stand) -> None:
    it.server.kill()


async def restart(it: Stand) -> None:
    it.server.start()


async def follow(it: Stand) -> None:
    it.server.admin.execute_command("REPLICAOF", "127.0.0.1", "1")


async def lead(it: Stand) -> None:
    it.server.admin.execute_command("REPLICAOF", "NO", "ONE")


FAULTS: dict[str, tuple[Fault, Fault]] = {
    "refused": (refuse, listen),
    "killed": (kill, restart),
    "black hole": by_proxy("hole"),
    "slow": by_proxy("slow"),
    "reset": by_proxy("reset"),
    "cut": by_proxy("cut"),
    "garbage": by_proxy("garbage"),
    "loading": by_proxy("say", b"-LOADING Redis is loading the dataset in memory\r\n"),
    "plain error": by_proxy("say", b"-ERR something is wrong\r\n"),
    "misconf": by_proxy("say", b"-MISCONF Redis is configured to save RDB snapshots\r\n"),
    "read only": (follow, lead),
    "out of memory": by_config(maxmemory="1"),
    "no replicas": by_config(min_replicas_to_write="1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed_once_costs_next_to_nothing_and_heals(
    fault: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "maru")
    begin, end = FAULTS[fault]

    async def scenario() -> None:
        async with stand(redis_server) as it:
            await it.answered()
            await begin(it)
            try:
                lost = await it.lost(300)
                assert it.breaker.open
                # One timeout of 0.1 s, or five errors that cost no time; the rest is what this machine needs.
                assert lost < 1.0
                assert it.breaker.failures <= 5
                assert it.breaker.spared >= 295
                until = time.monotonic() + 3 * PROBE_S
                while time.monotonic() < until:  # probes come and go, and find it no better
                    await it.lost(1)
                    await asyncio.sleep(0.01)
                assert it.breaker.openings == 1
            finally:
                await end(it)
            began = time.monotonic()
            await it.answered()
            assert time.monotonic() - began < 3
            assert not it.breaker.open
            assert max(it.lags) < 0.5
            assert sorted(it.lags)[len(it.lags) // 2] < 0.05

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "127.0.0.1" not in caplog.text


def test_the_first_timeout_is_the_only_one_however_many_wait(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            await it.answered()
            it.proxy.fault = "hole"
            began = time.monotonic()
            answers = await asyncio.gather(*(it.ask() for _ in range(200)), return_exceptions=True)
            assert all(isinstance(answer, Unavailable) for answer in answers)
            assert time.monotonic() - began < 1.0
            assert it.breaker.openings == 1

    asyncio.run(scenario())


def test_while_it_is_open_there_is_one_probe_at_a_time(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            await it.answered()
            it.proxy.fault = "hole"
            await it.lost(1)
            before = it.proxy.connections
            until = time.monotonic() + 5 * PROBE_S
            while time.monotonic() < until:
                await asyncio.gather(*(it.ask() for _ in range(50)), return_exceptions=True)
                await asyncio.sleep(0.005)
            # Each probe of a black hole opens one connection and gives it up.
            assert 1 <= it.proxy.connections - before <= 5

    asyncio.run(scenario())


def test_a_lost_connection_here_and_there_does_not_open_it(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            for _ in range(3):
                await it.answered()
                it.proxy.fault = "reset"
                await it.lost(1)
                it.proxy.fault = ""
            await it.answered()
            assert it.breaker.openings == 0

    asyncio.run(scenario())


def test_a_connection_that_the_server_closed_while_idle_costs_no_call(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            await it.answered()
            before = it.proxy.connections
            it.proxy.close_connections()
            await asyncio.sleep(0.05)
            assert await it.ask() == b"x"
            assert it.proxy.connections == before + 1

    asyncio.run(scenario())


def test_our_own_stalled_event_loop_is_not_blamed_on_redis(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            await it.answered()
            it.proxy.fault = "hole"
            asking = asyncio.create_task(it.ask())
            await asyncio.sleep(0.02)
            it.proxy.fault = ""
            time.sleep(0.3)
            await asyncio.gather(asking, return_exceptions=True)
            assert it.breaker.failures == 1
            assert not it.breaker.open

    asyncio.run(scenario())


def test_answers_that_come_in_single_bytes_are_answers(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            it.proxy.fault = "bytes"
            await it.answered()
            assert it.breaker.failures == 0

    asyncio.run(scenario())


def test_cancelled_calls_leave_the_pool_whole(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        breaker = Breaker(connect(redis_server.url, max_connections=4))

        async def hurried(i: int) -> None:
            try:
                async with asyncio.timeout(0.0002 * (i % 12)):
                    await breaker.call(lambda redis: redis.get("x"))
            except (TimeoutError, Unavailable):
                pass

        for _ in range(10):
            await asyncio.gather(*(hurried(i) for i in range(100)))
        assert await breaker.call(lambda redis: redis.set("x", b"1"))
        assert breaker.openings == 0
        await breaker.aclose()

    asyncio.run(scenario())


def test_a_narrowed_breaker_gives_up_sooner_and_alone(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "maru")

    async def scenario() -> None:
        async with stand(redis_server) as it:
            hasty = it.breaker.narrow("redis (hasty)", 0.02)
            await it.answered()
            it.proxy.fault, it.proxy.delay_s = "slow", 0.05
            for _ in range(5):
                with pytest.raises(Unavailable):
                    await hasty.call(lambda redis: redis.get("x"))
            assert hasty.open
            await asyncio.sleep(2 * PROBE_S)
            with pytest.raises(Unavailable):
                await hasty.call(lambda redis: redis.get("x"))
            await asyncio.sleep(0.1)
            # Slow for the one, still good for the other, and its own probe is as hasty as its calls.
            assert hasty.open and hasty.openings == 1
            assert not it.breaker.open
            it.proxy.fault = ""
            async with asyncio.timeout(5):
                while hasty.open:
                    try:
                        await hasty.call(lambda redis: redis.get("x"))
                    except Unavailable:
                        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_narrowed_breaker_follows_its_parent(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with stand(redis_server) as it:
            hasty = it.breaker.narrow("redis (hasty)", 0.02)
            await it.answered()
            it.proxy.fault = "hole"
            await it.lost(1)
            for _ in range(50):
                with pytest.raises(Unavailable):
                    await hasty.call(lambda redis: redis.get("x"))
            assert not hasty.open and hasty.failures == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["refused", "hole"])
def test_the_client_alone_gives_up_at_its_first_failure(fault: str, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy:
            client = connect(proxy.url)
            await client.ping()
            if fault == "refused":
                await proxy.refuse()
            proxy.fault = "hole"
            before = proxy.connections
            with pytest.raises(RedisError):
                async with asyncio.timeout(1):
                    await client.get("x")
            assert proxy.connections <= before + 1
            await client.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "", "redis//x"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="REDIS_URL"):
        connect(url)


def test_a_host_that_does_not_exist_is_unavailable() -> None:
    async def scenario() -> None:
        breaker = Breaker(connect("redis://no-such-host.invalid:6379"))
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(Unavailable):
                await breaker.call(lambda redis: redis.get("x"))
        assert time.monotonic() - began < 2
        await breaker.aclose()

    asyncio.run(scenario())
