"""Results in Redis: what was put comes back, and nothing else ever does."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from maru.storage.redis import Breaker, connect
from maru.storage.result_cache import RedisResults

from .servers import FaultProxy, RedisServer

SECRET = b"s" * 32
KEY = bytes(range(32))
NAME = b"maru:result:" + KEY


@asynccontextmanager
async def results(url: str, secret: bytes = SECRET) -> AsyncIterator[RedisResults]:
    breaker = Breaker(connect(url), probe_every_s=0.2)
    try:
        yield RedisResults(breaker, secret, timeout_s=0.2)
    finally:
        await breaker.aclose()


def keys(count: int) -> list[bytes]:
    return [os.urandom(32) for _ in range(count)]


def test_values_come_back_in_order_and_misses_are_none(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with results(redis_server.url) as cache:
            names = keys(500)
            await cache.put_many({name: name * 3 for name in names[::2]}, 60)
            found = await cache.get_many(names)
            assert found == [name * 3 if i % 2 == 0 else None for i, name in enumerate(names)]
            assert await cache.get_many([]) == []
            await cache.put_many({}, 60)

    asyncio.run(scenario())


def test_an_empty_value_is_a_value(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with results(redis_server.url) as cache:
            await cache.put_many({KEY: b""}, 60)
            assert await cache.get_many([KEY]) == [b""]

    asyncio.run(scenario())


def test_processes_with_one_secret_share(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with results(redis_server.url) as one, results(redis_server.url) as other:
            await one.put_many({KEY: b"value"}, 60)
            assert await other.get_many([KEY]) == [b"value"]

    asyncio.run(scenario())


def test_values_end(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with results(redis_server.url) as cache:
            await cache.put_many({KEY: b"value"}, 0.05)
            assert 0 < redis_server.admin.pttl(NAME) <= 50
            await cache.put_many({keys(1)[0]: b"value"}, 0)
            async with asyncio.timeout(5):
                while await cache.get_many([KEY]) != [None]:
                    await asyncio.sleep(0.01)
            assert redis_server.admin.keys("maru:result:*") == []

    asyncio.run(scenario())


def test_a_touched_value_is_not_found(redis_server: RedisServer) -> None:
    """Every flipped bit, every cut and whatever else may stand at our key in Redis."""

    async def scenario() -> None:
        admin = redis_server.admin
        async with results(redis_server.url) as cache:
            await cache.put_many({KEY: b"the value"}, 60)
            sound = admin.get(NAME)
            assert isinstance(sound, bytes)
            touched = [sound[:end] for end in range(len(sound))]
            for i, byte in enumerate(sound):
                touched.append(sound[:i] + bytes([byte ^ 1 << i % 8]) + sound[i + 1 :])
            touched += [sound + b"x", b"x" + sound, sound[::-1], b"null", b"\x80\x04N.", os.urandom(5000)]
            for value in touched:
                admin.set(NAME, value)
                assert await cache.get_many([KEY]) == [None], value
            admin.set(NAME, sound)
            assert await cache.get_many([KEY]) == [b"the value"]

    asyncio.run(scenario())


def test_a_value_of_another_key_is_not_found(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        admin = redis_server.admin
        async with results(redis_server.url) as cache:
            one, other = keys(2)
            await cache.put_many({one: b"one", other: b"other"}, 60)
            first, second = admin.get(b"maru:result:" + one), admin.get(b"maru:result:" + other)
            admin.set(b"maru:result:" + one, second)
            admin.set(b"maru:result:" + other, first)
            assert await cache.get_many([one, other]) == [None, None]
            for name, sealed in ((one, second), (other, first)):  # and with the name that it carries changed
                admin.set(b"maru:result:" + name, sealed.replace(one, name).replace(other, name))
            assert await cache.get_many([one, other]) == [None, None]

    asyncio.run(scenario())


def test_a_value_made_with_another_secret_is_not_found(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with results(redis_server.url) as cache, results(redis_server.url, b"t" * 32) as stranger:
            await stranger.put_many({KEY: b"value"}, 60)
            assert await cache.get_many([KEY]) == [None]

    asyncio.run(scenario())


def test_another_kind_of_value_at_our_key_is_not_found(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with results(redis_server.url) as cache:
            other = keys(1)[0]
            redis_server.admin.rpush(NAME, b"a", b"b")
            await cache.put_many({other: b"value"}, 60)
            assert await cache.get_many([KEY, other]) == [None, b"value"]
            await cache.put_many({KEY: b"value"}, 60)
            assert await cache.get_many([KEY]) == [b"value"]

    asyncio.run(scenario())


@pytest.mark.parametrize("secret", [b"", b"short", b"s" * 31])
def test_a_short_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="secret"):
        RedisResults(Breaker(connect("redis://127.0.0.1")), secret)


@pytest.mark.parametrize("fault", ["hole", "slow", "reset", "cut", "garbage"])
def test_redis_in_trouble_is_an_empty_cache(fault: str, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy:
            breaker = Breaker(connect(proxy.url), probe_every_s=0.2)
            cache = RedisResults(breaker, SECRET)
            await cache.put_many({KEY: b"value"}, 60)
            await found(cache, b"value")
            proxy.fault = fault
            began = time.monotonic()
            for _ in range(200):
                assert await cache.get_many([KEY]) == [None]
                await cache.put_many({KEY: b"value"}, 60)
            assert time.monotonic() - began < 1.5
            proxy.fault = ""
            await found(cache, b"value")
            await breaker.aclose()

    asyncio.run(scenario())


def test_reads_alone_do_not_wait_for_a_black_hole_either(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy:
            breaker = Breaker(connect(proxy.url), probe_every_s=10)
            cache = RedisResults(breaker, SECRET)
            await found(cache, None)
            proxy.fault = "hole"
            began = time.monotonic()
            for _ in range(100):
                assert await cache.get_many(keys(200)) == [None] * 200
            assert time.monotonic() - began < 1.0  # five times 20 ms, and what this machine needs
            await breaker.aclose()

    asyncio.run(scenario())


def test_flushall_and_noise_from_many_tasks_never_give_a_wrong_value(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(redis_server.socket) as proxy:
            breaker = Breaker(connect(proxy.url), probe_every_s=0.05)
            cache = RedisResults(breaker, SECRET, timeout_s=0.1)
            names = keys(40)
            chance = random.Random(3)

            async def user(times: int) -> None:
                for _ in range(times):
                    some = chance.sample(names, 8)
                    await cache.put_many({name: b"of " + name for name in some[:4]}, 60)
                    for name, value in zip(some, await cache.get_many(some), strict=True):
                        assert value is None or value == b"of " + name
                    await asyncio.sleep(0)

            async def trouble() -> None:
                while True:
                    proxy.fault = chance.choice(("", "", "", "reset", "cut", "slow", "bytes"))
                    redis_server.admin.flushall()
                    await asyncio.sleep(0.05)

            troubling = asyncio.create_task(trouble())
            await asyncio.gather(*(user(60) for _ in range(10)))
            troubling.cancel()
            proxy.fault = ""
            await found(cache, b"value")
            await breaker.aclose()

    asyncio.run(scenario())


async def found(cache: RedisResults, value: bytes | None) -> None:
    """Wait until the cache gives `value` for KEY."""
    async with asyncio.timeout(10):
        while await cache.get_many([KEY]) != [value]:
            if value is not None:
                await cache.put_many({KEY: value}, 60)
            await asyncio.sleep(0.01)
