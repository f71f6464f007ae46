"""Feedback on its way to the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from maru.engine.errors import QueueFull
from maru.engine.lifecycle import Lifecycle
from maru.http.problem import Problem
from maru.storage.feedback import FeedbackEvent, FeedbackStore

log = logging.getLogger(__name__)

MOST_WAITING = 256


class Recorder:
    """Stores events one request after another, since the database takes one writer at a time."""

    def __init__(self, store: FeedbackStore, lifecycle: Lifecycle) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._writing = asyncio.Lock()
        self._waiting = 0

    async def record(self, events: Sequence[FeedbackEvent]) -> list[FeedbackEvent]:
        """Those that were new. They are on disk then, also when the caller has left meanwhile.

        QueueFull when too many wait; Problem 503 when the database can't be written, and nothing is stored.
        """
        if self._waiting >= MOST_WAITING:
            raise QueueFull("too many events are being stored", retry_after_s=1.0)
        self._waiting += 1
        try:
            with self._lifecycle:
                async with self._writing:
                    return await asyncio.to_thread(self._store.add, events, datetime.now(UTC))
        except DBAPIError as error:
            log.error("events can't be stored (%s)", type(error).__name__)
            after = {"retry-after": "5"}
            raise Problem(503, "STORE_UNAVAILABLE", "events can't be stored now", headers=after) from error
        finally:
            self._waiting -= 1
