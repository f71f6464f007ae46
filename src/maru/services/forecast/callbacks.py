"""Telling a caller's own server what was predicted: at once if it listens, later if not, at least once."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar
from uuid import uuid4

from maru.auth.keyring import utc_now
from maru.auth.recent import Recent
from maru.engine.errors import QueueFull
from maru.engine.types import Clock
from maru.http.addresses import parse_url
from maru.http.fetch import Fetcher, FetchFailed, UrlRefused
from maru.http.problem import Problem
from maru.http.standard_webhooks import STANDARD, sign
from maru.storage.callbacks import Callback, Outbox

log = logging.getLogger(__name__)

T = TypeVar("T")
Result = Literal["delivered", "kept", "given_up"]

FIRST_TRY_S = 3.0
LATER_TRY_S = 10.0
"""What the two fetchers are given."""

FIRST_TRIES = 64
FIRST_TRIES_A_HOST = 8
LATER_TRIES = 32
LATER_TRIES_A_HOST = 4
"""At once, in this process. What is beyond them waits in the outbox and not in a request."""
TRY_AGAIN = frozenset({408, 409, 425, 429})
"""The 4xx that may be another answer next time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a callback is tried, in seconds.

    Between two tries it rests at random up to `base_s`, doubled each time, but never above `longest_s`, and after
    `life_s` it is given up. A host that failed after more than `slow_s` is for `spared_s` not waited for by
    requests. A process that was killed keeps what it was delivering for `lease_s`, which is longer than a try.

    The outbox is looked into every `poll_s`, or when there is something new in it, but not twice in `rest_s`; what is
    put into it gathers for `gather_s`. A statement costs more Python than a prediction, and takes it from those.
    """

    base_s: float = 5.0
    longest_s: float = 3600.0
    life_s: float = 24 * 3600.0
    slow_s: float = 1.0
    spared_s: float = 30.0
    lease_s: float = 30.0
    poll_s: float = 1.0
    gather_s: float = 0.02
    rest_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one try. `again` when the next may do better, not before `after_s` if the host said so."""

    delivered: bool
    again: bool = False
    after_s: float = 0.0
    reason: str = ""


class Callbacks:
    """Delivers callbacks. `key` signs them (Standard Webhooks) when there is one.

    `first` fetches while a request waits, `later` for the outbox. No host can hold up another, nor the requests
    that name it for longer than their first try; while it does not answer in time, they do not wait at all.
    """

    def __init__(
        self,
        outbox: Outbox,
        first: Fetcher,
        later: Fetcher,
        key: bytes | None = None,
        *,
        pace: Pace | None = None,
        report: Callable[[Result], None] = lambda result: None,
        clock: Clock = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._first = first
        self._later = later
        self._key = key
        self._pace = pace or Pace()
        self._report = report
        self._clock = clock
        self._now = now
        self._chance = chance
        self._threads = ThreadPoolExecutor(2, "maru-callbacks")
        self._trying: Counter[str] = Counter()
        self._slow: Recent[str, bool] = Recent(1024, self._pace.spared_s, clock)
        self._delivering: dict[str, Callback] = {}
        self._new: list[tuple[Callback, asyncio.Future[bool]]] = []
        self._storing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._failing = False

    async def send(self, url: str, body: bytes) -> bool:
        """Whether `url` has taken `body` now. Otherwise it is in the outbox when this returns, unless its host has
        refused it for good. QueueFull, or Problem 503, when it can't be kept."""
        target = parse_url(url)
        host = f"{target.raw_host}:{target.port}"
        callback = Callback(f"msg_{uuid4().hex}", url, host, body, self._now(), self._now())
        if self._may_be_waited_for(host):
            with self._counted(host):
                began = self._clock()
                attempt = await self._attempt(self._first, callback)
            if not attempt.again:
                self._told(callback, attempt)
                return attempt.delivered
            if self._clock() - began > self._pace.slow_s:
                self._slow.put(host, True)
            callback = Callback(callback.id, url, host, body, callback.created, self._due(1, attempt), 1)
        await self._keep(callback)
        return False

    async def run(self) -> None:
        """Deliver what is in the outbox, until cancelled; what is not done by then is given back."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for callback in await self._claimed():
                        self._delivering[callback.id] = callback
                        group.create_task(self._deliver(callback))
                    await self._wakened()
        finally:
            if self._delivering:
                await self._stored(self._outbox.release, list(self._delivering), self._now())

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """`run` in the background; in the end let the statements under way end."""
        running = asyncio.create_task(self.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if self._storing is not None:
                await asyncio.wait((self._storing,))
            await asyncio.to_thread(self._threads.shutdown, wait=True)

    def _may_be_waited_for(self, host: str) -> bool:
        if self._slow.get(host) or self._trying[host] >= FIRST_TRIES_A_HOST:
            return False
        return self._trying.total() < FIRST_TRIES

    @contextmanager
    def _counted(self, host: str) -> Iterator[None]:
        self._trying[host] += 1
        try:
            yield
        finally:
            self._trying[host] -= 1
            if not self._trying[host]:
                del self._trying[host]

    async def _attempt(self, fetcher: Fetcher, callback: Callback) -> Attempt:
        when = int(self._now().timestamp())
        headers = {"Content-Type": "application/json", STANDARD.id: callback.id, STANDARD.timestamp: str(when)}
        if self._key is not None:
            headers[STANDARD.signature] = sign(self._key, callback.id, when, callback.body)
        try:
            posted = await fetcher.post(callback.url, callback.body, headers)
        except UrlRefused as error:
            return Attempt(False, reason=error.reason)
        except FetchFailed as error:
            return Attempt(False, True, reason=error.reason)
        status = posted.status
        if 200 <= status < 300:
            return Attempt(True)
        again = not 400 <= status < 500 or status in TRY_AGAIN
        return Attempt(False, again, posted.retry_after_s or 0.0, f"{callback.host}: status {status}")

    def _due(self, attempts: int, attempt: Attempt) -> datetime:
        """Full jitter, so that callbacks which failed together are not tried again together."""
        most = min(self._pace.longest_s, self._pace.base_s * 2 ** min(attempts - 1, 20))
        wait_s = max(attempt.after_s, self._chance() * most)
        return self._now() + timedelta(seconds=min(wait_s, 2 * self._pace.life_s))

    async def _deliver(self, callback: Callback) -> None:
        try:
            attempt = await self._attempt(self._later, callback)
            due = self._due(callback.attempts, attempt)
            if attempt.again and due <= callback.created + timedelta(seconds=self._pace.life_s):
                await self._stored(self._outbox.put_off, callback.id, due)
                self._report("kept")
            else:
                await self._stored(self._outbox.finish, callback.id)
                self._told(callback, attempt)
        except Exception as error:
            self._fails(error)  # it is due again when its lease ends
        del self._delivering[callback.id]
        self._wake.set()

    def _told(self, callback: Callback, attempt: Attempt) -> None:
        self._report("delivered" if attempt.delivered else "given_up")
        if not attempt.delivered:
            log.warning("the callback %s is given up (%s)", callback.id, attempt.reason)

    async def _claimed(self) -> list[Callback]:
        """What is to be tried now."""
        free = LATER_TRIES - len(self._delivering)
        busy = {callback.host for callback in self._delivering.values()}
        try:
            claimed = await self._stored(self._claim, free, busy) if free else []
        except Exception as error:
            self._fails(error)
            return []
        if self._failing:
            log.info("callbacks can be read and written again")
        self._failing = False
        return claimed

    def _claim(self, most: int, busy: Collection[str]) -> list[Callback]:
        lease_s = self._pace.lease_s
        return self._outbox.claim(self._now(), lease_s=lease_s, most=most, per_host=LATER_TRIES_A_HOST, without=busy)

    async def _wakened(self) -> None:
        """Until there may be something to do."""
        try:
            async with asyncio.timeout(self._pace.poll_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(self._pace.rest_s)
        self._wake.clear()

    async def _keep(self, callback: Callback) -> None:
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._new.append((callback, kept))
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store())
        if not await kept:
            raise QueueFull("too many callbacks wait to be delivered", retry_after_s=60.0)
        self._report("kept")
        self._wake.set()

    async def _store(self) -> None:
        """Store what is new. All that comes within a moment, or while one commit is on its way, shares the next."""
        while self._new:
            await asyncio.sleep(self._pace.gather_s)
            new, self._new = self._new, []
            try:
                stored = await self._stored(self._outbox.add, [callback for callback, _ in new])
            except Exception as error:
                self._fails(error)
                for _, kept in new:
                    if not kept.done():
                        words = "the callback can't be stored for later, and its host does not take it now"
                        kept.set_exception(Problem(503, "CALLBACK_NOT_KEPT", words, headers={"retry-after": "5"}))
                continue
            for place, (_, kept) in enumerate(new):
                if not kept.done():
                    kept.set_result(place < stored)

    async def _stored(self, statement: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, statement, *given)

    def _fails(self, error: Exception) -> None:
        if not self._failing:
            log.error("callbacks can't be read or written (%s)", type(error).__name__)
        self._failing = True
