"""What a run is doing right now, told to the other processes through Redis. Never the truth: that is the table's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
from redis.asyncio import Redis

from maru.storage.redis import Breaker, Unavailable

TTL_S = 5
MOST_SAMPLES = 50
"""Of five seconds, ten a second."""


class Board:
    """The last word of each run and its latest samples, which are gone five seconds later.

    Nothing here raises. What Redis can't take is not told, and what it can't give is not known.
    """

    def __init__(self, breaker: Breaker, namespace: str = "maru:benchmark") -> None:
        self._breaker = breaker
        self._namespace = namespace

    async def tell(self, benchmark_id: str, progress: Mapping[str, Any], sample: Mapping[str, Any] | None) -> None:
        """How far it is, and what the machine does."""
        status, samples = self._keys(benchmark_id)
        word = orjson.dumps(progress)

        async def write(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.set(status, word, ex=TTL_S)
                if sample is not None:
                    pipe.lpush(samples, orjson.dumps(sample))
                    pipe.ltrim(samples, 0, MOST_SAMPLES - 1)
                    pipe.expire(samples, TTL_S)
                await pipe.execute()

        with suppress(Unavailable):
            await self._breaker.call(write)

    async def progress(self, benchmark_id: str) -> Mapping[str, Any] | None:
        """How far it is, if it was told in the last seconds."""
        status, _ = self._keys(benchmark_id)

        async def read(redis: Redis) -> Any:
            return await redis.get(status)

        return _object(await self._asked(read))

    async def samples(self, benchmark_id: str) -> list[Mapping[str, Any]]:
        """The samples of the last seconds, the oldest first."""
        _, samples = self._keys(benchmark_id)

        async def read(redis: Redis) -> Any:
            return await redis.lrange(samples, 0, MOST_SAMPLES - 1)

        return [found for told in reversed(await self._asked(read) or []) if (found := _object(told)) is not None]

    async def _asked(self, read: Any) -> Any:
        try:
            return await self._breaker.call(read)
        except Unavailable:
            return None

    def _keys(self, benchmark_id: str) -> tuple[str, str]:
        return f"{self._namespace}:{benchmark_id}", f"{self._namespace}:{benchmark_id}:samples"


def _object(told: Any) -> Mapping[str, Any] | None:
    """Whatever else stands there under our name is not known."""
    try:
        found = orjson.loads(told) if told is not None else None
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
