"""Joins the items of many requests into batches, and hands each its own answer.

Batches form while the workers are busy. When a batch that waiting could not improve is ready, it is handed
over before a worker is free, so that the worker goes from one to the next without asking.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from maru.engine.admission import Admitted
from maru.engine.errors import EngineError, ModelFailed, OutOfMemory
from maru.engine.events import BatchComputed, Events
from maru.engine.grouping import full, take
from maru.engine.model import Model, Prepared
from maru.engine.types import Clock, Limits, ModelRef, Request

_LEAVING = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)
"""What ends whoever waits. Any other BaseException is the model's: a panic in native code is no Exception, nor is
what a library that gives up with `sys.exit` raises."""


class _Job:
    """The items of one request in this batcher, and the future of all their outputs."""

    __slots__ = ("admitted", "answered", "gone", "outputs", "slots")

    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        self.slots = len(admitted.positions)
        self.outputs: list[Any] = [None] * self.slots
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = False

    def finish(self, item: _Item, output: Any) -> None:
        self.outputs[item.index] = _typed(output) if isinstance(output, BaseException) else output
        self.slots -= 1
        if not self.slots and not self.answered.done():
            self.answered.set_result(None)


@dataclass(slots=True, eq=False)
class _Item:
    job: _Job
    index: int
    value: Any
    cost: float
    order: int
    arrived: float


class Batcher:
    """The batches of one loaded model."""

    def __init__(self, ref: ModelRef, model: Model, limits: Limits, events: Events, clock: Clock) -> None:
        self._ref = ref
        self._model = model
        self._limits = limits
        self._events = events
        self._clock = clock
        self._queue: deque[_Item] = deque()
        self._cost = 0.0
        self._called = False
        self._order = 0
        self._gone = 0
        self._running = 0
        self._preparing: set[asyncio.Future[Sequence[Prepared | Exception]]] = set()
        self._idle: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[_Computed], list[_Item]] = {}
        self._coroutine = inspect.iscoroutinefunction(model.predict)
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix=f"maru-{ref.name}")

    async def submit(self, admitted: Admitted) -> list[Any]:
        """The outputs of these items, in their order; a failed item's output is its exception.

        A caller that is cancelled leaves the batch at once; what it left behind is never computed, unless it
        is being computed already.
        """
        job = _Job(admitted)
        put = 0
        try:
            while positions := await admitted.more():
                inputs = [admitted.request.inputs[position] for position in positions]
                self._put(job, put, await self._prepare(inputs))
                put += len(positions)
            admitted.request.stage = "computing"
            await job.answered
            return job.outputs
        finally:
            job.gone = True
            if job.slots:
                self._leave(job)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Any]]:
        """The parts of the answer to the request's one input. A model that streams batches by itself."""
        (ready,) = await self._prepare(request.inputs)
        if not isinstance(ready, Prepared):
            raise _typed(ready)
        request.stage = "computing"
        started = self._clock()
        parts = self._parts(ready.value)
        try:
            yield parts
        finally:
            request.timings.compute_s = self._clock() - started
            await parts.aclose()

    async def _parts(self, value: Any) -> AsyncGenerator[Any, None]:
        """The model's parts. What the model raises is typed; what their reader raises is the reader's."""
        parts: Any = None
        try:
            parts = self._model.stream(value)
            async for part in parts:
                yield part
        except _LEAVING:
            raise
        except BaseException as error:
            failure = _typed(error)
            raise failure from failure.__cause__
        finally:
            if hasattr(parts, "aclose"):
                await parts.aclose()

    async def _prepare(self, inputs: Sequence[Any]) -> Sequence[Prepared | Exception]:
        """Each input made ready, or its error. Inputs that can't be prepared together are halved like a batch."""
        try:
            if self._model.quick(inputs):
                return self._checked(inputs, self._model.prepare(inputs))
            return self._checked(inputs, await self._prepare_in_thread(inputs))
        except _LEAVING:
            raise
        except BaseException as error:
            if len(inputs) == 1:
                return [_typed(error)]
        middle = len(inputs) // 2
        return [*await self._prepare(inputs[:middle]), *await self._prepare(inputs[middle:])]

    async def _prepare_in_thread(self, inputs: Sequence[Any]) -> Sequence[Prepared | Exception]:
        """Shielded, since the thread goes on when the caller leaves, and the model must not be closed under it."""
        preparing = asyncio.ensure_future(asyncio.to_thread(self._model.prepare, inputs))
        self._preparing.add(preparing)
        preparing.add_done_callback(self._prepared)
        return await asyncio.shield(preparing)

    def _prepared(self, preparing: asyncio.Future[Sequence[Prepared | Exception]]) -> None:
        self._preparing.discard(preparing)
        self._rest()

    def _put(self, job: _Job, first: int, prepared: Sequence[Prepared | Exception]) -> None:
        now = self._clock()
        refused = 0
        for index, ready in enumerate(prepared, first):
            if isinstance(ready, Prepared):
                self._order += 1
                self._cost += ready.cost
                self._queue.append(_Item(job, index, ready.value, ready.cost, self._order, now))
            else:
                refused += 1
                job.finish(_Item(job, index, None, 0.0, 0, now), ready)
        if refused:
            job.admitted.release(refused)
        if self._model.inline:
            self._dispatch()
        elif not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Dispatch what one turn of the event loop has brought, together: a burst shares a batch."""
        self._called = False
        self._dispatch()

    def _leave(self, job: _Job) -> None:
        """Drop what a gone caller left, at the latest when half of the queue is that."""
        self._gone += job.slots
        if self._gone > len(self._queue) // 2:
            self._queue = deque(item for item in self._queue if not item.job.gone)
            self._cost = sum(item.cost for item in self._queue)
            self._gone = 0
        for task, batch in self._tasks.items():
            if all(item.job.gone for item in batch):
                task.cancel()

    def _dispatch(self) -> None:
        """Start every batch that should start now."""
        while self._queue and self._idle is None:
            if self._queue[0].job.gone:
                self._cost -= self._queue.popleft().cost
                continue
            ready = full(len(self._queue), self._cost, self._limits)
            ahead = ready and not self._coroutine
            if self._running >= self._limits.workers + ahead or not (ready or self._waited()):
                return
            batch = take(self._queue, self._limits, self._share())
            self._cost -= sum(item.cost for item in batch)
            self._start([item for item in batch if not item.job.gone])

    def _share(self) -> int:
        """How many items the next batch may hold: what is queued is shared out among the workers that are free,
        unless it waited to become one batch."""
        if self._limits.max_queue_delay_s:
            return self._limits.max_batch_size
        free = max(1, self._limits.workers - self._running)
        return min(self._limits.max_batch_size, -(-len(self._queue) // free))

    def _waited(self) -> bool:
        """Whether the oldest item has waited long enough for others; if not, sets the timer for when it will."""
        left = self._queue[0].arrived + self._limits.max_queue_delay_s - self._clock()
        if self._limits.max_queue_delay_s == 0 or left <= 0:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left, self._ring)
        return False

    def _ring(self) -> None:
        self._timer = None
        self._dispatch()

    def _start(self, batch: list[_Item]) -> None:
        if not batch:
            return
        self._running += 1
        if self._model.inline:
            self._finish(batch, self._compute(batch))
            return
        loop = asyncio.get_running_loop()
        if self._coroutine:
            task = loop.create_task(self._compute_here(batch))
            self._tasks[task] = batch
            task.add_done_callback(self._landed)
            return

        def hand_back(future: Future[_Computed]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._done, batch, future.result())

        self._threads.submit(self._compute, batch).add_done_callback(hand_back)

    def _compute(self, batch: list[_Item]) -> _Computed:
        started = self._clock()
        outputs: dict[int, Any] = {}
        live = [item for item in batch if not item.job.gone]
        groups = [live] if live else []
        while groups:
            group = groups.pop()
            try:
                answers = self._checked(group, self._model.predict([item.value for item in group]))
            except BaseException as error:
                groups.extend(self._split(group, error, outputs))
            else:
                outputs.update(zip((item.order for item in group), answers, strict=True))
        return _Computed(started, self._clock(), outputs)

    async def _compute_here(self, batch: list[_Item]) -> _Computed:
        started = self._clock()
        outputs: dict[int, Any] = {}
        groups = [batch]
        while groups:
            group = groups.pop()
            try:
                answers = self._checked(group, await self._model.predict([item.value for item in group]))  # type: ignore[misc]
            except asyncio.CancelledError:
                break
            except _LEAVING:
                raise
            except BaseException as error:
                groups.extend(self._split(group, error, outputs))
            else:
                outputs.update(zip((item.order for item in group), answers, strict=True))
        return _Computed(started, self._clock(), outputs)

    def _landed(self, task: asyncio.Task[_Computed]) -> None:
        """Also of a task that was cancelled before its first step."""
        now = self._clock()
        self._done(self._tasks.pop(task), _Computed(now, now, {}) if task.cancelled() else task.result())

    @staticmethod
    def _checked(group: Sequence[Any], answers: Sequence[Any]) -> Sequence[Any]:
        if len(answers) != len(group):
            raise ModelFailed(f"the model gave {len(answers)} answers to {len(group)} inputs")
        return answers

    @staticmethod
    def _split(group: list[_Item], error: BaseException, outputs: dict[int, Any]) -> list[list[_Item]]:
        """A batch that failed is halved until the item that made it fail stands alone."""
        if len(group) > 1:
            middle = len(group) // 2
            return [group[:middle], group[middle:]]
        outputs[group[0].order] = _typed(error)
        return []

    def _done(self, batch: list[_Item], computed: _Computed) -> None:
        self._finish(batch, computed)
        self._dispatch()

    def _finish(self, batch: list[_Item], computed: _Computed) -> None:
        self._running -= 1
        seconds = computed.ended - computed.started
        ran = [item for item in batch if item.order in computed.outputs]
        finished: dict[_Job, int] = {}
        for item in batch:
            job = item.job
            if job.gone:
                continue
            timings = job.admitted.request.timings
            timings.batch_s = max(timings.batch_s, computed.started - item.arrived)
            timings.compute_s = max(timings.compute_s, seconds)
            timings.batch_size = max(timings.batch_size, len(ran))
            answered = item.order in computed.outputs
            job.finish(item, computed.outputs[item.order] if answered else ModelFailed("the model gave no answer"))
            finished[job] = finished.get(job, 0) + 1
        for job, count in finished.items():
            job.admitted.release(count)
        if ran:
            self._events.emit(
                BatchComputed(
                    self._ref,
                    len(ran),
                    sum(item.cost for item in ran),
                    computed.started - min(item.arrived for item in ran),
                    seconds,
                    any(isinstance(output, Exception) for output in computed.outputs.values()),
                )
            )
        self._rest()

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._running and not self._preparing:
            self._idle.set_result(None)

    async def close(self) -> None:
        """Take no more work. Done when no thread and no task is in the model any more."""
        self._idle = asyncio.get_running_loop().create_future()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False)
        self._rest()
        await self._idle


@dataclass(frozen=True, slots=True)
class _Computed:
    """What a worker brings back: outputs by the items' order, without those of callers gone before it began."""

    started: float
    ended: float
    outputs: dict[int, Any]


def _typed(error: BaseException) -> EngineError:
    if isinstance(error, EngineError):
        return error
    failure = OutOfMemory("out of memory") if isinstance(error, MemoryError) else ModelFailed("the model failed")
    failure.__cause__ = error
    return failure
