"""Joins the items of many requests into batches, and hands each its own answer.

Batches form while the workers are busy. A worker that ends one takes the next from the queue itself, as large
as it has become by then, without waiting for its turn of the event loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from maru.engine.admission import Admitted
from maru.engine.computing import LEAVING, Computed, checked, compute, compute_here, typed
from maru.engine.errors import ModelFailed
from maru.engine.events import BatchComputed, Events
from maru.engine.model import Model, Prepared
from maru.engine.pending import Item, Job, Pending
from maru.engine.types import Clock, Limits, ModelRef, Request


class Batcher:
    """The batches of one loaded model."""

    def __init__(self, ref: ModelRef, model: Model, limits: Limits, events: Events, clock: Clock) -> None:
        self._ref = ref
        self._model = model
        self._events = events
        self._clock = clock
        self._pending = Pending(limits, clock)
        self._called = False
        self._order = 0
        self._idle: asyncio.Future[None] | None = None
        self._preparing: set[asyncio.Future[Sequence[Prepared | Exception]]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[Computed], list[Item]] = {}
        self._threaded = not model.inline and not inspect.iscoroutinefunction(model.predict)
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix=f"maru-{ref.name}")

    async def submit(self, admitted: Admitted) -> list[Any]:
        """The outputs of these items, in their order; a failed item's output is its exception.

        A caller that is cancelled leaves the batch at once; what it left behind is never computed, unless it
        is being computed already.
        """
        job = Job(admitted)
        put = 0
        try:
            while positions := await admitted.more():
                inputs = [admitted.request.inputs[position] for position in positions]
                self._put(job, put, await self._prepare(inputs))
                put += len(positions)
            admitted.request.stage = "computing"
            return await job.answered()
        finally:
            job.gone = True
            if job.slots:
                self._leave(job)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Any]]:
        """The parts of the answer to the request's one input. A model that streams batches by itself."""
        (ready,) = await self._prepare(request.inputs)
        if not isinstance(ready, Prepared):
            raise typed(ready)
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
        except LEAVING:
            raise
        except BaseException as error:
            failure = typed(error)
            raise failure from failure.__cause__
        finally:
            if hasattr(parts, "aclose"):
                await parts.aclose()

    async def _prepare(self, inputs: Sequence[Any]) -> Sequence[Prepared | Exception]:
        """Each input made ready, or its error. Inputs that can't be prepared together are halved like a batch."""
        try:
            if self._model.quick(inputs):
                return checked(inputs, self._model.prepare(inputs))
            return checked(inputs, await self._prepare_in_thread(inputs))
        except LEAVING:
            raise
        except BaseException as error:
            if len(inputs) == 1:
                return [typed(error)]
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

    def _put(self, job: Job, first: int, prepared: Sequence[Prepared | Exception]) -> None:
        now = self._clock()
        items = []
        for index, ready in enumerate(prepared, first):
            if isinstance(ready, Prepared):
                self._order += 1
                items.append(Item(job, index, ready.value, ready.cost, self._order, now))
            else:
                job.finish(index, typed(ready))
        if len(items) < len(prepared):
            job.admitted.release(len(prepared) - len(items))
        if self._model.inline and self._pending.passes(items):
            self._deliver(items, compute(self._model, items, self._clock))
            return
        self._pending.add(items)
        if self._model.inline:
            self._dispatch()
        elif not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Dispatch what one turn of the event loop has brought, together: a burst shares a batch."""
        self._called = False
        self._dispatch()

    def _leave(self, job: Job) -> None:
        """Drop what a gone caller left."""
        self._pending.drop(job.slots)
        for task, batch in self._tasks.items():
            if all(item.job.gone for item in batch):
                task.cancel()

    def _dispatch(self) -> None:
        """Start every batch that should start now, and look again when the oldest item has waited long enough."""
        if self._threaded:
            self._ask(asyncio.get_running_loop())
        else:
            while batch := self._pending.next():
                self._start(batch)
        if self._timer is None and (left := self._pending.early_s()) > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._dispatch()

    def _start(self, batch: list[Item]) -> None:
        """On the event loop."""
        if self._model.inline:
            self._finish(batch, compute(self._model, batch, self._clock))
            return
        task = asyncio.get_running_loop().create_task(compute_here(self._model, batch, self._clock))
        self._tasks[task] = batch
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[Computed]) -> None:
        """Also of a task that was cancelled before its first step."""
        now = self._clock()
        self._done(self._tasks.pop(task), Computed(now, now, {}) if task.cancelled() else task.result())

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have workers look at the queue: those that are free now, and those that will be when they come to it."""

        def hand_back(future: Future[tuple[list[Item], Computed] | None]) -> None:
            if loop.is_closed():
                return
            if done := future.result():
                loop.call_soon_threadsafe(self._done, *done)
            elif self._pending:  # it is no longer what it was when this worker was asked
                loop.call_soon_threadsafe(self._dispatch)

        for _ in range(self._pending.ask()):
            self._threads.submit(self._work).add_done_callback(hand_back)

    def _work(self) -> tuple[list[Item], Computed] | None:
        """In a worker's thread: the batch that is best now."""
        batch = self._pending.answer()
        return (batch, compute(self._model, batch, self._clock)) if batch else None

    def _done(self, batch: list[Item], computed: Computed) -> None:
        self._finish(batch, computed)
        self._dispatch()

    def _finish(self, batch: list[Item], computed: Computed) -> None:
        self._pending.done(batch)
        self._deliver(batch, computed)
        self._rest()

    def _deliver(self, batch: Sequence[Item], computed: Computed) -> None:
        """Give every item its output, or its error."""
        seconds = computed.ended - computed.started
        ran = [item for item in batch if item.order in computed.outputs]
        finished: dict[Job, int] = {}
        for item in batch:
            job = item.job
            if job.gone:
                continue
            timings = job.admitted.request.timings
            timings.batch_s = max(timings.batch_s, computed.started - item.arrived)
            timings.compute_s = max(timings.compute_s, seconds)
            timings.batch_size = max(timings.batch_size, len(ran))
            answered = item.order in computed.outputs
            output = computed.outputs[item.order] if answered else ModelFailed("the model gave no answer")
            job.finish(item.index, typed(output) if isinstance(output, BaseException) else output)
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

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._pending.running and not self._preparing:
            self._idle.set_result(None)

    async def close(self) -> None:
        """Take no more work. Done when no thread and no task is in the model any more."""
        self._pending.close()
        self._idle = asyncio.get_running_loop().create_future()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False)
        self._rest()
        await self._idle
