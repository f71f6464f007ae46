"""Looking up API keys without making anyone wait for SQL."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

from maru.auth.bearer import CannotVerify
from maru.auth.recent import Recent
from maru.engine.types import Clock
from maru.storage.api_keys import ApiKey, ApiKeys

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Keyring:
    """The stored keys, as this process knows them.

    What was looked up is known for `fresh_s` seconds and found again without leaving the event loop; a
    revocation is therefore effective after that time, five seconds at most, in every process. Lookups run
    in two threads of the keyring's own, each id once however many requests wait for it.
    """

    def __init__(
        self,
        store: ApiKeys,
        *,
        fresh_s: float = 3.0,
        timeout_s: float = 2.0,
        size: int = 4096,
        clock: Clock = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock
        self._now = now
        self._threads = ThreadPoolExecutor(2, "maru-keys")
        self._known: Recent[str, ApiKey] = Recent(size, fresh_s, clock)
        # Apart from the known ones, so that a flood of invented ids drives out none of them.
        self._unknown: Recent[str, bool] = Recent(size, fresh_s, clock)
        self._touched: Recent[str, bool] = Recent(size, 60.0, clock)
        self._failing = False
        self._asking: dict[str, asyncio.Task[ApiKey | None]] = {}

    async def find(self, public_id: str) -> ApiKey | None:
        """The key of that id. CannotVerify when the database does not answer in time."""
        known = self._known.get(public_id)
        if known is not None:
            return known
        if self._unknown.get(public_id):
            return None
        task = self._asking.get(public_id)
        if task is None:
            task = asyncio.create_task(self._look_up(public_id))
            self._asking[public_id] = task
            task.add_done_callback(lambda done: self._settle(public_id, done))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(task)
        except Exception as error:
            raise CannotVerify(retry_after_s=self._timeout_s) from error

    def touch(self, public_id: str) -> None:
        """Have the key's last use noted, once a minute at most, by a thread that nobody waits for."""
        if not self._touched.get(public_id):
            self._touched.put(public_id, True)
            with suppress(RuntimeError):  # closed already: the last requests of a server that stops
                self._threads.submit(self._note_use, public_id, self._now())

    async def aclose(self) -> None:
        """Let running statements end and drop those not yet begun."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def _look_up(self, public_id: str) -> ApiKey | None:
        began = self._clock()
        try:
            key = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.find, public_id)
        except Exception as error:
            if not self._failing:
                log.error("API keys can't be looked up (%s)", type(error).__name__)
            self._failing = True
            raise
        if self._failing:
            log.info("API keys can be looked up again")
        self._failing = False
        # An answer is as old as its question: the row may have changed the moment after it was read.
        if key is None:
            self._unknown.put(public_id, True, began)
        else:
            self._known.put(public_id, key, began)
        return key

    def _settle(self, public_id: str, task: asyncio.Task[ApiKey | None]) -> None:
        del self._asking[public_id]
        if not task.cancelled():
            task.exception()  # everyone who waited may have given up: nobody else will look at it

    def _note_use(self, public_id: str, when: datetime) -> None:
        try:
            self._store.touch(public_id, when)
        except Exception as error:
            log.warning("the last use of an API key was not noted (%s)", type(error).__name__)
