"""The way to Redis, and what stands in it when Redis is down, slow or full."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.maint_notifications import MaintNotificationsConfig

from maru.engine.types import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 5
_WINDOW_S = 10.0
_PROBE_KEY = b"maru:probe"


def connect(url: str, *, timeout_s: float = 0.1, max_connections: int = 32) -> Redis:
    """A client for `url` that gives up after `timeout_s` on each connect and read, and never tries twice.

    Nothing is connected yet. A URL that is not one of Redis's raises ValueError.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # redis-py's own retries turn a black hole into minutes.
            retry=Retry(NoBackoff(), 0),
            # A connection is ready with its first byte: no HELLO, no CLIENT SETINFO, no notifications.
            protocol=2,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError as error:
        raise ValueError(f"REDIS_URL: {error}") from None
    return Redis.from_pool(pool)


class Unavailable(Exception):
    """Redis was not asked, did not answer in time, or answered with an error."""


class Breaker:
    """Asks Redis while it answers, and spares everyone the wait while it does not.

    One call that runs into `timeout_s` opens it, as do five failures that cost no time (refused, reset,
    READONLY, OOM, …) within ten seconds. While it is open every call raises `Unavailable` at once; every
    `probe_every_s` one of them starts a probe, a small write, in the background, and a probe that
    succeeds closes it. Opening and closing are logged once each.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        name: str = "redis",
        timeout_s: float = 0.1,
        probe_every_s: float = 2.0,
        clock: Clock = time.monotonic,
        parent: Breaker | None = None,
    ) -> None:
        self.name = name
        self.open = False
        self.openings = 0
        """How often Redis was given up on."""
        self.failures = 0
        """Calls that asked Redis in vain."""
        self.spared = 0
        """Calls that were answered without asking it."""
        self._redis = redis
        self._timeout_s = timeout_s
        self._probe_every_s = probe_every_s
        self._clock = clock
        self._parent = parent
        self._narrowed: list[Breaker] = []
        self._recent: deque[float] = deque(maxlen=_PATIENCE)
        self._next_probe = 0.0
        self._probing: asyncio.Task[None] | None = None

    @property
    def pool(self) -> ConnectionPool:
        """The client's connections, for a library that brings a client of its own."""
        return self._redis.connection_pool

    def narrow(self, name: str, timeout_s: float) -> Breaker:
        """A breaker over this one for calls that are worth less waiting.

        Running into the shorter time says only that Redis is slow for this use, so it takes five of them
        to open, and opens for this use alone.
        """
        narrowed = Breaker(
            self._redis,
            name=name,
            timeout_s=timeout_s,
            probe_every_s=self._probe_every_s,
            clock=self._clock,
            parent=self,
        )
        self._narrowed.append(narrowed)
        return narrowed

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """What `work` gets from Redis, or `Unavailable`, within the time limit."""
        if self.open:
            self.spared += 1
            self._probe_when_due()
            raise Unavailable
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(work)
        except Unavailable:
            raise
        except (TimeoutError, RedisTimeout) as error:
            self._failed(error, costly=self._clock() - began < 1.5 * self._timeout_s)
            raise Unavailable from error
        except Exception as error:  # a stream that is not Redis makes the client raise almost anything
            self._failed(error)
            raise Unavailable from error

    async def aclose(self) -> None:
        """Stop probing and, where this is the breaker that was made with the client, close the client."""
        for narrowed in self._narrowed:
            await narrowed.aclose()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        if self._parent is None:
            with suppress(RedisError, OSError):  # a connection that will not be closed in time is left to die
                await self._redis.aclose()

    async def _ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        if self._parent is not None:
            return await self._parent.call(work)
        return await work(self._redis)

    def _failed(self, error: Exception, *, costly: bool = False) -> None:
        # A timer that rings far too late was held up by our own event loop: that is not Redis's doing.
        self.failures += 1
        if self.open:
            return
        now = self._clock()
        self._recent.append(now)
        worn_out = len(self._recent) == _PATIENCE and now - self._recent[0] <= _WINDOW_S
        if worn_out or (costly and self._parent is None):
            self.open = True
            self.openings += 1
            self._next_probe = now + self._probe_every_s
            log.warning("%s is not answering (%s); doing without it until it is", self.name, _word(error))

    def _probe_when_due(self) -> None:
        if self._probing is None and self._clock() >= self._next_probe:
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._parent is None:
                    # What was connected before may be dead without knowing it.
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._ask(_write)
        except Unavailable:
            pass  # the parent is open and probes for itself; this one follows with the next call
        except Exception:
            self._next_probe = self._clock() + self._probe_every_s
        else:
            self.open = False
            self._recent.clear()
            log.info("%s is answering again", self.name)
        finally:
            self._probing = None


async def _write(redis: Redis) -> None:
    await redis.set(_PROBE_KEY, b"1", px=1000)


def _word(error: Exception) -> str:
    """The error without its text, which may hold an address."""
    return "Timeout" if isinstance(error, TimeoutError | RedisTimeout) else type(error).__name__
