"""The items that wait for a worker, and those that are being computed."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maru.engine.admission import Admitted
from maru.engine.grouping import full, take
from maru.engine.types import Clock, Limits


class Job:
    """The items of one request in a batcher, and their outputs."""

    __slots__ = ("_answered", "admitted", "gone", "outputs", "slots")

    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        self.slots = len(admitted.positions)
        self.outputs: list[Any] = [None] * self.slots
        self._answered: asyncio.Future[None] | None = None
        self.gone = False

    def finish(self, index: int, output: Any) -> None:
        self.outputs[index] = output
        self.slots -= 1
        if not self.slots and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    async def answered(self) -> list[Any]:
        """All outputs, once they are there."""
        if self.slots:
            self._answered = asyncio.get_running_loop().create_future()
            await self._answered
        return self.outputs


@dataclass(slots=True, eq=False)
class Item:
    """One prepared input: the `index`-th of its job's."""

    job: Job
    index: int
    value: Any
    cost: float
    order: int
    arrived: float


class Pending:
    """The queue of one batcher. Worker threads take their batches from it while the event loop adds to it."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[Item] = deque()
        self._cost = 0.0
        self._gone = 0
        self._computing = 0
        self._asked = 0
        self._closed = False
        self.running = 0
        """Batches that are being computed."""

    def __len__(self) -> int:
        return len(self._queue)

    def passes(self, items: Sequence[Item]) -> bool:
        """Whether these may go past the queue as a batch: nothing waits in it, and nothing more could join them."""
        if self._queue or self._closed or self._limits.max_queue_delay_s:
            return False
        return len(items) == 1 or (
            len(items) <= self._limits.max_batch_size
            and sum(item.cost for item in items) <= self._limits.max_batch_cost
            and self._limits.batch_spread is None
        )

    def add(self, items: Sequence[Item]) -> None:
        with self._lock:
            self._queue.extend(items)
            self._cost += sum(item.cost for item in items)

    def drop(self, gone: int) -> None:
        """So many items more have lost their caller. They are dropped at the latest when half of the queue is that."""
        self._gone += gone
        if self._gone > len(self._queue) // 2:
            with self._lock:
                self._queue = deque(item for item in self._queue if not item.job.gone)
                self._cost = sum(item.cost for item in self._queue)
            self._gone = 0

    def ask(self) -> int:
        """How many workers are to look at the queue beside those that were asked before."""
        with self._lock:
            if not self._queue or self._early_s() > 0:
                return 0
            more = max(0, min(len(self._queue), self._limits.workers) - self._asked)
            self._asked += more
            return more

    def answer(self) -> list[Item]:
        """What `next` gives to a worker that was asked."""
        with self._lock:
            self._asked -= 1
            return self._next()

    def next(self) -> list[Item]:
        """The batch that should start now, taken from the queue; empty if there is none, or no worker for it."""
        with self._lock:
            return self._next() if self.running < self._limits.workers else []

    def _next(self) -> list[Item]:
        while self._queue and not self._closed:
            if self._queue[0].job.gone:
                self._cost -= self._queue.popleft().cost
                continue
            if self._early_s() > 0:
                break
            taken = take(self._queue, self._limits, self._share())
            self._cost -= sum(item.cost for item in taken)
            if batch := [item for item in taken if not item.job.gone]:
                self.running += 1
                self._computing += len(batch)
                return batch
        return []

    def done(self, batch: Sequence[Item]) -> None:
        with self._lock:
            self.running -= 1
            self._computing -= len(batch)

    def early_s(self) -> float:
        """How much longer the oldest item may wait for others to join it; 0 when nothing waits."""
        with self._lock:
            return self._early_s() if self._queue and not self._closed else 0.0

    def _early_s(self) -> float:
        if not self._limits.max_queue_delay_s or full(len(self._queue), self._cost, self._limits):
            return 0.0
        return self._queue[0].arrived + self._limits.max_queue_delay_s - self._clock()

    def _share(self) -> int:
        """How many items the next batch may hold, unless they waited to become one: of what is queued as much as
        each free worker can have, and of all that is here as much as each worker."""
        most, workers, queued = self._limits.max_batch_size, self._limits.workers, len(self._queue)
        if self._limits.max_queue_delay_s:
            return most
        free = max(1, workers - self.running)
        return min(most, -(-queued // free), -(-(queued + self._computing) // workers))

    def close(self) -> None:
        """Nothing is taken from the queue any more."""
        with self._lock:
            self._closed = True
