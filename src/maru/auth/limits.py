"""How many requests a caller may send in a minute."""

from __future__ import annotations

import hashlib
import math
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

from redis.asyncio import Redis

from maru.auth.principal import RateLimited
from maru.engine.types import Clock
from maru.storage.redis import Breaker, Unavailable

_POLICY = '"default"'

# KEYS[1] lists when the caller's requests were let in, newest first, in microseconds by the clock of Redis.
# One script, so that any number of processes count as one. A clock that was set back empties the list.
_LET_IN = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000000
local newest = tonumber(redis.call('LINDEX', KEYS[1], 0))
if newest and newest > now then redis.call('DEL', KEYS[1]) end
local oldest = tonumber(redis.call('LINDEX', KEYS[1], -1))
while oldest and oldest <= now - window do
    redis.call('RPOP', KEYS[1])
    oldest = tonumber(redis.call('LINDEX', KEYS[1], -1))
end
local count = redis.call('LLEN', KEYS[1])
local let_in = count < limit
if let_in then
    redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
    redis.call('PEXPIRE', KEYS[1], window / 1000)
    count = count + 1
end
return {let_in and 1 or 0, count, (oldest or now) + window - now}
"""


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """Of `limit` requests in `window_s` seconds `remaining` may still be sent; one more after `reset_s`."""

    limit: int
    window_s: int
    remaining: int
    reset_s: float


def headers(outcome: RateLimitState | RateLimited) -> dict[str, str]:
    """The response headers that tell a caller its limit, by draft-ietf-httpapi-ratelimit-headers, and when it
    was refused, Retry-After: a request sent then is let in."""
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

    The requests let in are counted in Redis when there is a `breaker`, and in this process always: while
    Redis is away each process lets in `alone` (`limit`, when not given) by its own count, and what Redis
    forgets in a restart this process still knows. The latest `max_principals` callers are counted here.
    """

    def __init__(
        self,
        limit: int,
        *,
        window_s: int = 60,
        breaker: Breaker | None = None,
        alone: int | None = None,
        max_principals: int = 100_000,
        namespace: str = "maru:limit",
        clock: Clock = time.monotonic,
    ) -> None:
        if limit < 1 or window_s < 1 or (alone is not None and not 1 <= alone <= limit):
            raise ValueError("a rate limit is one request in one second at least")
        self.degraded = 0
        """Requests that were judged by this process alone because Redis did not answer."""
        self._limit = limit
        self._window_s = window_s
        self._breaker = breaker
        self._alone = alone or limit
        self._max_principals = max_principals
        self._namespace = f"{namespace}:{window_s}:".encode()
        self._clock = clock
        self._seen: OrderedDict[str, array[float]] = OrderedDict()

    async def check(self, principal_id: str) -> RateLimitState:
        """Count one request of the principal, or raise RateLimited, which costs the principal nothing."""
        window = self._window(principal_id)
        self._refuse_over(self._limit, window)
        # Counted before Redis is asked, so that requests still on their way to it are not forgotten.
        moment = self._count(principal_id, window)
        if self._breaker is None:
            return self._state(self._limit, window)
        try:
            return await self._check_shared(principal_id, self._breaker)
        except RateLimited:
            self._uncount(principal_id, moment)
            raise
        except Unavailable:
            self.degraded += 1
        self._uncount(principal_id, moment)
        window = self._window(principal_id)
        self._refuse_over(self._alone, window)
        self._count(principal_id, window)
        return self._state(self._alone, window)

    async def _check_shared(self, principal_id: str, breaker: Breaker) -> RateLimitState:
        key = self._namespace + hashlib.sha256(principal_id.encode()).digest()

        async def let_in(redis: Redis) -> tuple[int, int, int]:
            answer = await redis.eval(_LET_IN, 1, key, self._limit, self._window_s)
            return int(answer[0]), int(answer[1]), int(answer[2])

        passed, count, wait_us = await breaker.call(let_in)
        if not passed:
            raise RateLimited(self._limit, self._window_s, wait_us / 1e6)
        return RateLimitState(self._limit, self._window_s, self._limit - count, wait_us / 1e6)

    def _window(self, principal_id: str) -> array[float]:
        """When the principal's requests of the last window were let in here, oldest first."""
        start = self._clock() - self._window_s
        while self._seen and next(iter(self._seen.values()))[-1] <= start:
            self._seen.popitem(last=False)
        window = self._seen.get(principal_id)
        if window is None:
            return array("d")
        del window[: bisect_right(window, start)]
        if not window:  # none in `_seen` is empty
            del self._seen[principal_id]
        return window

    def _count(self, principal_id: str, window: array[float]) -> float:
        moment = self._clock()
        window.append(moment)
        self._seen[principal_id] = window
        self._seen.move_to_end(principal_id)
        if len(self._seen) > self._max_principals:
            self._seen.popitem(last=False)
        return moment

    def _uncount(self, principal_id: str, moment: float) -> None:
        window = self._seen.get(principal_id)
        if window is not None and moment in window:
            window.remove(moment)
            if not window:
                del self._seen[principal_id]

    def _refuse_over(self, allowed: int, window: array[float]) -> None:
        if len(window) >= allowed:
            raise RateLimited(self._limit, self._window_s, self._wait(window, len(window) - allowed))

    def _state(self, allowed: int, window: array[float]) -> RateLimitState:
        return RateLimitState(self._limit, self._window_s, allowed - len(window), self._wait(window, 0))

    def _wait(self, window: array[float], place: int) -> float:
        """Seconds until the request in that place of the window, counted from the oldest, has left it."""
        return window[place] + self._window_s - self._clock()
