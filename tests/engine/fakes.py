"""Scripted models, and an engine whose every promise is watched while a test plays with it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.engine.virtual import loop_of

from maru.engine.admission import Line
from maru.engine.batcher import Batcher
from maru.engine.cache import ResultStore
from maru.engine.engine import Engine, Stream
from maru.engine.errors import InputError
from maru.engine.events import (
    BatchComputed,
    CacheLookedUp,
    Event,
    ModelChanged,
    QueueChanged,
    RequestFinished,
)
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef, Request, Result


class Panic(BaseException):
    """What native code raises when it panics (pyo3's PanicException is no Exception either)."""


FATES = ("raises", "panics", "exits", "memory", "short", "error", "invalid", "reject")


@dataclass(frozen=True, slots=True)
class Item:
    """One input, and what befalls it.

    Fates: raises, panics, exits, memory, short (an answer too few): the batch that it is in suffers; error: in its
    output's place; invalid: in its place in `prepare`; reject: `prepare` raises for all.
    """

    id: int
    fate: str = "ok"
    cost: float = 1.0
    seconds: float = 0.0


class Json:
    """The codec of the fakes."""

    def encode(self, output: Any) -> bytes:
        return json.dumps(output).encode()

    def decode(self, data: bytes) -> Any:
        answer = json.loads(data)
        if not isinstance(answer, list) or len(answer) != 4:
            raise ValueError("not an answer")
        return tuple(answer)


class Fake(Model):
    """Answers `(name, version, nonce, item id)`, after `base_s` and the items' own seconds. The nonce is this
    instance's alone, so an answer tells who made it."""

    def __init__(self, world: World, ref: ModelRef, script: Script) -> None:
        self.world = world
        self.ref = ref
        self.script = script
        self.memory_bytes = script.memory_bytes
        self.nonce = world.nonce()
        self.batches: list[list[int]] = []
        self.busy = 0
        self.warmed = False
        self.closed = False
        self.prepared_in_thread = 0
        self.streams_open = 0
        self.died = False
        world.opened.append(self)

    def warm(self) -> None:
        loop_of().spend(self.script.warm_s)
        if self.script.fails_to_warm:
            raise RuntimeError("cannot warm")
        self.warmed = True

    def alive(self) -> bool:
        return not self.died

    def quick(self, inputs: Sequence[Item]) -> bool:
        return not self.script.prepare_s

    def prepare(self, inputs: Sequence[Item]) -> Sequence[Prepared | Exception]:
        self.check("prepare")
        if self.script.prepare_s:
            self.prepared_in_thread += 1
            self._busy_for(self.script.prepare_s)
        if any(item.fate == "reject" for item in inputs):
            raise InputError("one of these can't be prepared")
        return [
            InputError(f"item {item.id} is invalid") if item.fate == "invalid" else Prepared(item, item.cost)
            for item in inputs
        ]

    def _busy_for(self, seconds: float) -> None:
        """In a thread: nobody may close this model before that time is over."""
        loop = loop_of()
        loop.spend(seconds)
        self.busy += 1
        loop.call_at(loop.time(), self._idle)

    def _idle(self) -> None:
        self.busy -= 1

    def check(self, what: str) -> None:
        if self.closed:
            self.world.violations.append(f"{what} of {self.ref} after it was closed")
        if not self.warmed:
            self.world.violations.append(f"{what} of {self.ref} before it was warm")

    def began(self, batch: Sequence[Item]) -> float:
        self.check("predict")
        self.batches.append([item.id for item in batch])
        limits = self.script.limits
        if len(batch) > limits.max_batch_size:
            self.world.violations.append(f"a batch of {len(batch)}")
        if len(batch) > 1 and sum(item.cost for item in batch) > limits.max_batch_cost + 1e-9:
            self.world.violations.append("a batch that costs too much")
        return self.script.base_s + sum(item.seconds for item in batch)

    def answers(self, batch: Sequence[Item]) -> list[Any]:
        fates = {item.fate for item in batch}
        if "raises" in fates:
            raise ValueError("secret input text")
        if "panics" in fates:
            raise Panic("native code panicked")
        if "exits" in fates:
            raise SystemExit(1)
        if "memory" in fates:
            raise MemoryError
        return [self.answer(item) for item in batch if item.fate != "short"]

    def answer(self, item: Item) -> Any:
        if item.fate == "error":
            return RuntimeError(f"item {item.id} failed")
        return (self.ref.name, self.ref.version, self.nonce, item.id)

    async def stream(self, value: Item) -> AsyncIterator[Any]:
        self.check("stream")
        self.streams_open += 1
        try:
            for part in range(3):
                await asyncio.sleep(self.script.base_s)
                self.check("stream")
                if value.fate == "raises" and part == 1:
                    raise ValueError("secret input text")
                yield (*self.answer(value), part)
        finally:
            self.streams_open -= 1

    def close(self) -> None:
        if self.closed:
            self.world.violations.append(f"{self.ref} was closed twice")
        if (self.busy or self.streams_open) and not self.died:
            self.world.violations.append(f"{self.ref} was closed in use")
        self.closed = True
        loop = loop_of()
        loop.spend(self.script.close_s)
        loop.call_at(loop.time(), self.world.freed, self.memory_bytes)


class FakeOnLoop(Fake):
    """Computes in a coroutine."""

    async def predict(self, batch: Sequence[Item]) -> Sequence[Any]:  # type: ignore[override]
        self.busy += 1
        try:
            await asyncio.sleep(self.began(batch))
            self.check("predict")
            return self.answers(batch)
        finally:
            self.busy -= 1


class FakeInline(Fake):
    """Computes on the loop, in no time."""

    inline = True

    def predict(self, batch: Sequence[Item]) -> Sequence[Any]:
        self.began(batch)
        return self.answers(batch)


class FakeInThread(Fake):
    """Computes in a worker thread."""

    def predict(self, batch: Sequence[Item]) -> Sequence[Any]:
        self._busy_for(self.began(batch))
        return self.answers(batch)


@dataclass(slots=True)
class Script:
    """How a fake behaves. A test may change it between loads."""

    limits: Limits
    base_s: float = 1.0
    load_s: float = 1.0
    warm_s: float = 0.0
    close_s: float = 0.0
    prepare_s: float = 0.0
    memory_bytes: int = 0
    threaded: bool = False
    inline: bool = False
    fails_to_load: BaseException | None = None
    fails_to_warm: bool = False
    loads: int = 0


class World:
    """An engine and all that is known of it. Leaving the context asserts that it holds nothing any more."""

    def __init__(self, limits: Limits | None = None, result_store: ResultStore | None = None, **engine: Any) -> None:
        self.limits = limits or Limits(running=2, waiting=10)
        self.loop = loop_of()
        self.engine = Engine(clock=self.loop.time, result_store=result_store, **engine)
        self.engine.events.subscribe(self._seen)
        self.loop.on_idle = self.check
        self.opened: list[Fake] = []
        self.violations: list[str] = []
        self.events: list[Event] = []
        self.finished: Counter[int] = Counter()
        self.outcomes: dict[int, RequestFinished] = {}
        self.asked: list[Request] = []
        self.held_bytes = 0
        self.most_bytes = 0
        self._nonces = 0
        self._ids = 0

    # What a test says

    def spec(
        self,
        name: str = "m",
        version: str = "1",
        *,
        script: Script | None = None,
        cached: bool = False,
        on_demand: bool = False,
        pinned: bool = False,
        group: str = "",
        expected_bytes: int | None = None,
        **scripted: Any,
    ) -> ModelSpec:
        script = script or Script(scripted.pop("limits", self.limits), **scripted)
        ref = ModelRef(name, version, f"digest of {name}@{version}")
        expected = script.memory_bytes if expected_bytes is None else expected_bytes
        return ModelSpec(
            ref,
            lambda: self._open(ref, script),
            script.limits,
            Json() if cached else None,
            expected,
            pinned,
            on_demand,
            group,
        )

    async def serve(self, name: str = "m", version: str = "1", **spec: Any) -> Fake:
        """Add a version, load it, and give back the loaded model."""
        made = self.spec(name, version, **spec)
        self.engine.repository.add(made)
        return self.model(await self.engine.manager.load(made))

    @staticmethod
    def model(resident: Any) -> Fake:
        assert isinstance(resident.model, Fake)
        return resident.model

    def request(
        self,
        *items: Item | int,
        model: str = "m",
        deadline_s: float = 30.0,
        cached: bool = False,
        **more: Any,
    ) -> Request:
        inputs = [item if isinstance(item, Item) else Item(item) for item in items] or [Item(self.id())]
        more.setdefault("costs", [item.cost for item in inputs])
        if cached:
            more.setdefault("keys", [b"item %d" % item.id for item in inputs])
        return Request(model, inputs, self.loop.time() + deadline_s, **more)

    def ask(self, *items: Item | int, **request: Any) -> asyncio.Task[Result]:
        """Send a request from a task of its own."""
        return asyncio.get_running_loop().create_task(self.infer(self.request(*items, **request)))

    async def infer(self, request: Request) -> Result:
        self.asked.append(request)
        return await self.engine.infer(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        self.asked.append(request)
        return self.engine.stream(request)

    def id(self) -> int:
        self._ids += 1
        return self._ids

    def nonce(self) -> int:
        self._nonces += 1
        return self._nonces

    # What is asserted

    def line(self, name: str = "m") -> Line:
        return self.engine.admission._lines[name]

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def changes(self) -> list[str]:
        """What became of models, as 'm@1 loaded'."""
        return [f"{event.ref} {event.change}" for event in self.events if isinstance(event, ModelChanged)]

    def _open(self, ref: ModelRef, script: Script) -> Fake:
        script.loads += 1
        loop_of().spend(script.load_s)
        self.held_bytes += script.memory_bytes
        self.most_bytes = max(self.most_bytes, self.held_bytes)
        if script.fails_to_load is not None:
            self.loop.call_at(self.loop.time(), self.freed, script.memory_bytes)
            raise script.fails_to_load
        kind = FakeInline if script.inline else FakeInThread if script.threaded else FakeOnLoop
        return kind(self, ref, script)

    def freed(self, memory_bytes: int) -> None:
        self.held_bytes -= memory_bytes

    def _seen(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case RequestFinished(request=request):
                self.finished[id(request)] += 1
                self.outcomes[id(request)] = event
            case QueueChanged():
                self._within(event.running, event.waiting, self.line(event.model).limits)
            case BatchComputed() | CacheLookedUp() | ModelChanged():
                pass

    def _within(self, running: int, waiting: int, limits: Limits) -> None:
        if not 0 <= running <= limits.running or not 0 <= waiting <= limits.waiting:
            self.violations.append(f"{running} running and {waiting} waiting")

    def check(self) -> None:
        """What must be so whenever nothing is about to happen."""
        for line in self.engine.admission._lines.values():
            waiting = sum(a.waiting for caller in line._callers.values() for a in caller.requests)
            items = sum(caller.items for caller in line._callers.values())
            self._within(line.running, line.waiting, line.limits)
            if not waiting == items == line.waiting:
                self.violations.append(f"{line.waiting} waiting, but {waiting} or {items} in the line")
            cost = sum(caller.cost for caller in line._callers.values())
            if abs(cost - line._waiting_cost) > 1e-6:
                self.violations.append(f"{line._waiting_cost} of cost waiting, but {cost} in the line")
            several = [tenant for tenant, caller in line._callers.items() if len(caller.requests) > 1]
            if sorted(several) != sorted(line._several):
                self.violations.append(f"{several} have several requests waiting, not {line._several}")
            if line.waiting and line.running < line.limits.running:
                self.violations.append("a free slot, and somebody waits")
        manager = self.engine.manager
        own = manager._memory.budget("")
        staying = manager._memory.residents.keys() - manager._departures.outgoing()
        for group, budget in manager._memory.budgets.items():
            count = sum(manager._memory.residents[ref].spec.group == group for ref in staying)
            if budget.models and count > budget.models:
                self.violations.append(f"{count} models in memory, beside those that are being replaced")
            if budget.bytes and manager._memory.bytes(group) > budget.bytes:
                self.violations.append(f"{manager._memory.bytes(group)} bytes in memory")
        if own.bytes and len(manager._memory.budgets) == 1 and self.held_bytes > own.bytes:
            self.violations.append(f"{self.held_bytes} bytes held by models, loading and closing ones included")
        assert not self.violations, self.violations

    async def __aenter__(self) -> Self:
        self.engine.lifecycle.advance("ready")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        if kind is not None:
            self.loop.on_idle = None
            return
        await self.settle()
        self.assert_quiet()
        await self.engine.close()
        await self.settle()
        assert not self.violations, self.violations
        assert all(model.closed for model in self.opened if model.warmed), "a model was never closed"
        assert self.held_bytes == 0, self.held_bytes

    async def settle(self, seconds: float = 1000.0) -> None:
        """Let every computation that nobody waits for come to its end."""
        await asyncio.sleep(seconds)

    def assert_quiet(self) -> None:
        self.check()
        for name, line in self.engine.admission._lines.items():
            assert (line.running, line.waiting) == (0, 0), f"{name}: {line.running}, {line.waiting}"
            assert abs(line._running_cost) < 1e-6, line._running_cost
            assert not line._callers and not line._turns
        assert not self.engine.manager._memory.leases
        assert not self.engine.manager._memory.loads
        assert not self.engine.manager._memory.using and not self.engine.manager._memory.parting
        turns = self.engine.manager._turns
        assert not turns._waiters and not any(turns._lines.values())
        assert not self.engine.manager._departures.outgoing()
        assert not self.engine.cache.flights
        assert not self.engine.cache._writes
        assert not self.engine.lifecycle._work
        known = {spec.ref for spec in self.engine.repository}
        for resident in self.engine.manager:
            assert_idle(resident.batcher)
            assert resident.spec.ref in known, f"{resident.spec.ref} is in memory and nobody can ask for it"
        for request in self.asked:
            assert self.finished[id(request)] == 1, f"{self.finished[id(request)]} endings of {request}"


def assert_idle(batcher: Batcher) -> None:
    assert not batcher._pending and not batcher._pending.running and not batcher._tasks
    assert abs(batcher._pending._cost) < 1e-6


async def ticks(count: int) -> None:
    """Let the event loop turn `count` times, at the same instant."""
    for _ in range(count):
        await asyncio.sleep(0)


def outcome(task: asyncio.Task[Any]) -> Any:
    """What a task came to: its result, its exception, or the word 'cancelled'."""
    if task.cancelled():
        return "cancelled"
    return task.exception() or task.result()
