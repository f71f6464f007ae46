"""How many requests a caller may send in a minute."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from maru.auth.principal import RateLimited
from maru.storage.redis import Breaker, Unavailable

_POLICY = '"default"'


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """Of `limit` requests in `window_s` seconds `remaining` may still be sent; the window is empty after `reset_s`."""

    limit: int
    window_s: int
    remaining: int
    reset_s: float


def headers(outcome: RateLimitState | RateLimited) -> dict[str, str]:
    """The response headers that tell a caller its limit, by draft-ietf-httpapi-ratelimit-headers, and when it was
    refused, Retry-After: a request sent then is let in."""
    remaining = outcome.remaining if isinstance(outcome, RateLimitState) else 0
    reset_s = max(1, math.ceil(outcome.reset_s))
    fields = {
        "RateLimit-Policy": f"{_POLICY};q={outcome.limit};w={outcome.window_s}",
        "RateLimit": f"{_POLICY};r={remaining};t={reset_s}",
    }
    if isinstance(outcome, RateLimited):
        fields["Retry-After"] = str(reset_s)
    return fields


class RateLimiter:
    """Lets each principal send `limit` requests in any `window_s` seconds, by whichever process they come.

    The requests let in are counted in Redis when there is a `breaker`, and in this process always: its count stands
    while Redis is away, and after it, as Redis forgets. Counting is the `limits` library's, in a moving window.
    """

    def __init__(self, limit: int, *, window_s: int = 60, breaker: Breaker | None = None) -> None:
        if limit < 1 or window_s < 1:
            raise ValueError("a rate limit is one request in one second at least")
        self.degraded = 0
        """Requests that were judged by this process alone because Redis did not answer."""
        self._item: RateLimitItem = RateLimitItemPerSecond(limit, window_s, namespace="maru")
        self._limit = limit
        self._window_s = window_s
        self._breaker = breaker
        self._here = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None
        if breaker is not None:
            storage = RedisStorage(
                "async+redis://",
                implementation="redispy",
                key_prefix="maru:limit",
                connection_pool=breaker.pool,  # type: ignore[arg-type]  # documented, but not in its annotation
            )
            self._shared = MovingWindowRateLimiter(storage)

    async def check(self, principal_id: str) -> RateLimitState:
        """Count one request of the principal, or raise RateLimited, which costs the principal nothing."""
        # No name of a person in Redis, nor a character that its keys give a meaning to.
        name = hashlib.sha256(principal_id.encode()).hexdigest()
        shared = self._shared
        if self._breaker is not None and shared is not None and await self._here.test(self._item, name):
            try:
                let_in, remaining, reset_s = await self._breaker.call(lambda _: self._count(shared, name))
            except Unavailable:
                self.degraded += 1
            else:
                if let_in:
                    await self._here.hit(self._item, name)
                return self._judged(let_in, remaining, reset_s)
        return self._judged(*await self._count(self._here, name))

    async def _count(self, window: MovingWindowRateLimiter, name: str) -> tuple[bool, int, float]:
        """Whether the request is let in, how many more would be, and how long until the oldest has left the window."""
        let_in = await window.hit(self._item, name)
        stats = await window.get_window_stats(self._item, name)
        return let_in, stats.remaining, stats.reset_time - time.time()

    def _judged(self, let_in: bool, remaining: int, reset_s: float) -> RateLimitState:
        if not let_in:
            raise RateLimited(self._limit, self._window_s, reset_s)
        return RateLimitState(self._limit, self._window_s, remaining, reset_s)
