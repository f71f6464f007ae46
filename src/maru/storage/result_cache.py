"""Computed results that several processes share through Redis."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from redis.asyncio import Redis

from maru.engine.types import Clock
from maru.storage.redis import Breaker, Unavailable

_MAGIC = b"maru\x01"
_KEY_BYTES = 32
_TAG_BYTES = 32
_HEAD_BYTES = len(_MAGIC) + _KEY_BYTES + _TAG_BYTES

_CHUNK = 64
"""Values asked for at once: about a millisecond of the event loop with embeddings of 1.6 KB."""


class RedisResults:
    """Values by 32-byte key, in Redis, for a time.

    Redis is trusted with nothing: each value carries its key and an HMAC under `secret` (32 bytes at least,
    the same in every process that shares the cache), and whatever does not bear them is not found. Nor
    does anything here raise: what Redis can't give within `timeout_s` is not found, what it can't take
    is not kept.
    """

    def __init__(
        self,
        breaker: Breaker,
        secret: bytes,
        *,
        timeout_s: float = 0.02,
        namespace: str = "maru:result",
        clock: Clock = time.monotonic,
    ) -> None:
        if len(secret) < 32:
            raise ValueError("the secret of the result cache must have 32 bytes at least")
        self._writes = breaker
        self._reads = breaker.narrow(f"{breaker.name} (results)", timeout_s)
        self._secret = hmac.digest(secret, b"maru result cache", hashlib.sha256)
        self._timeout_s = timeout_s
        self._prefix = namespace.encode() + b":"
        self._clock = clock

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order, or None. What was not read in time is None, the rest stands."""
        found: list[bytes | None] = [None] * len(keys)
        # No chunk is asked for in the last quarter of the time, so that a long list on a sound Redis ends by
        # itself instead of running into the breaker.
        last_start = self._clock() + self._timeout_s * 0.75

        async def read(redis: Redis) -> None:
            for start in range(0, len(keys), _CHUNK):
                if start and self._clock() > last_start:
                    return
                chunk = keys[start : start + _CHUNK]
                values = await redis.mget([self._prefix + key for key in chunk])
                for i, (key, value) in enumerate(zip(chunk, values, strict=True), start):
                    found[i] = self._open(key, value)

        with suppress(Unavailable):
            await self._reads.call(read)
        return found

    async def put_many(self, items: Mapping[bytes, bytes], ttl_s: float) -> None:
        """Keep each value for `ttl_s` seconds, as far as Redis takes them."""
        px = int(ttl_s * 1000)
        pairs = list(items.items())
        if px <= 0:
            return
        with suppress(Unavailable):
            for start in range(0, len(pairs), _CHUNK):
                chunk = pairs[start : start + _CHUNK]

                async def write(redis: Redis, chunk: list[tuple[bytes, bytes]] = chunk) -> None:
                    pipeline = redis.pipeline(transaction=False)
                    for key, value in chunk:
                        pipeline.set(self._prefix + key, self._seal(key, value), px=px)
                    await pipeline.execute()

                await self._writes.call(write)

    def _seal(self, key: bytes, value: bytes) -> bytes:
        return b"".join((_MAGIC, key, self._tag(key, value), value))

    def _open(self, key: bytes, sealed: object) -> bytes | None:
        if not isinstance(sealed, bytes) or len(sealed) < _HEAD_BYTES or not sealed.startswith(_MAGIC + key):
            return None
        value = sealed[_HEAD_BYTES:]
        tag = sealed[_HEAD_BYTES - _TAG_BYTES : _HEAD_BYTES]
        return value if hmac.compare_digest(tag, self._tag(key, value)) else None

    def _tag(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(self._secret, _MAGIC + key + value, hashlib.sha256)
