"""A schedule is a string of bytes read as moves of callers and operators against one engine. Whatever the
bytes, what `World` and `Play` assert must hold after every step."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from tests.engine.fakes import FATES, Item, Script, World, ticks

from maru.engine.errors import (
    DeadlineExceeded,
    Draining,
    EngineError,
    InputError,
    ModelFailed,
    ModelLoadFailed,
    ModelNotFound,
    NoRoom,
    OutOfMemory,
    Refused,
    TooManyItems,
)
from maru.engine.memory import Budget
from maru.engine.types import Limits, ModelRef, Request, Result

ERRORS: dict[str, type[Exception]] = dict.fromkeys(FATES, ModelFailed) | {
    "memory": OutOfMemory,
    "invalid": InputError,
    "reject": InputError,
}
ITEMS = [Item(i, cost=1.0 + i % 3, seconds=0.5 * (i % 4 == 3)) for i in range(16)]
ITEMS += [Item(16 + i, fate) for i, fate in enumerate(FATES)]
T = TypeVar("T")
NAMES = ("a", "b", "c")


class Dice:
    """The schedule's bytes, one decision each. After the last one every decision is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._data)

    def roll(self, sides: int) -> int:
        if self._next >= len(self._data):
            return 0
        self._next += 1
        return self._data[self._next - 1] % sides

    def of(self, *choices: T) -> T:
        return choices[self.roll(len(choices))]


class Store:
    """A second level as it is on a bad day: slow, forgetful, and with entries that are none."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._kept: dict[bytes, bytes] = {}

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self._kind == "failing":
            raise ConnectionError("redis is gone")
        await asyncio.sleep(0.4 if self._kind == "slow" else 0)
        if self._kind == "corrupt":
            return [b"\xff corrupt" for _ in keys]
        return [self._kept.get(key) for key in keys]

    async def put_many(self, items: Mapping[bytes, bytes], ttl_s: float) -> None:
        await asyncio.sleep(0.4 if self._kind == "slow" else 0)
        self._kept.update(items)


class Play:
    """One schedule, played."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.callers: list[asyncio.Task[None]] = []
        self.operators: list[asyncio.Task[None]] = []
        self.retired: set[str] = set()
        self.versions = dict.fromkeys(NAMES, 1)
        self.scripts: dict[str, Script] = {}
        self.drained = False

    def limits(self) -> Limits:
        d = self.dice
        return Limits(
            running=d.of(2, 1, 3, 4),
            waiting=d.of(3, 0, 1, 6),
            max_batch_size=d.of(4, 1, 2, 3),
            max_batch_cost=d.of(math.inf, math.inf, 4.0),
            max_queue_delay_s=d.of(0.0, 0.0, 0.5, 2.0),
            batch_spread=d.of(None, None, 1.5),
            workers=d.of(1, 2),
        )

    async def run(self) -> None:
        d = self.dice
        kind = d.of("", "", "", "good", "slow", "corrupt", "failing")
        budget = Budget(d.of(0, 2, 1), d.of(0, 100, 150), d.of(0.0, 0.0, 3.0))
        async with World(
            result_store=Store(kind) if kind else None,
            cache_ttl_s=d.of(3600.0, 2.0),
            cache_bytes=d.of(2**20, 600),
            budgets={"": budget},
        ) as w:
            self.world = w
            w.loop.on_idle = self.check
            for name in NAMES[: d.of(1, 2, 3)]:
                self.add(name)
            while d:
                await self.move()
            await asyncio.gather(*self.callers, *self.operators, return_exceptions=True)
            for task in (*self.callers, *self.operators):
                if not task.cancelled() and (error := task.exception()):
                    raise error

    def check(self) -> None:
        """Nobody hangs: where slots are taken, something is loading, preparing, queued or computing."""
        self.world.check()
        for name, line in self.world.engine.admission._lines.items():
            if line.running:
                assert self.busy(name), f"{line.running} of {name}'s slots are taken, and nothing goes on"

    def busy(self, name: str) -> bool:
        manager = self.world.engine.manager
        batchers = [resident.batcher for resident in manager if resident.spec.ref.name == name]
        return (
            any(ref.name == name for ref in (*manager._memory.loads, *manager._memory.parting.values()))
            or any(batcher._pending.running or batcher._pending or batcher._preparing for batcher in batchers)
            or any(model.streams_open for model in self.world.opened if model.ref.name == name)
        )

    def add(self, name: str) -> None:
        d = self.dice
        kind = d.of("on the loop", "in a thread", "on the loop", "in a thread", "inline")
        self.scripts[name] = Script(
            self.limits(),
            base_s=d.of(1.0, 0.0, 0.3, 4.0),
            load_s=d.of(0.0, 1.0, 5.0),
            close_s=d.of(0.0, 1.0),
            prepare_s=d.of(0.0, 0.0, 0.3),
            memory_bytes=d.of(40, 60, 100),
            threaded=kind == "in a thread",
            inline=kind == "inline",
        )
        self.on_demand = d.of(True, False)
        spec = self.world.spec(name, script=self.scripts[name], cached=True, on_demand=self.on_demand)
        self.world.engine.repository.add(spec)
        self.operate(self.load(name))

    async def move(self) -> None:
        match self.dice.roll(20):
            case 0 | 1 | 2 | 3 | 4:
                self.arrive(1)
            case 5 | 6 | 7:
                self.arrive(2 + self.dice.roll(5))
            case 8:
                self.arrive(0)
            case 9 | 10:
                self.cancel()
            case 11 | 12:
                await ticks(1 + self.dice.roll(6))
            case 13 | 14 | 15:
                await asyncio.sleep(self.dice.of(1.0, 0.3, 0.5, 3.0, 20.0))
            case 16 | 17:
                self.operate(self.swap(self.name()))
            case 18:
                self.operate(self.dice.of(self.load, self.unload)(self.name()))
            case 19 if len(self.callers) > 5:
                self.operate(self.drain())

    def name(self) -> str:
        return self.dice.of(*self.scripts)

    # Callers

    def arrive(self, count: int) -> None:
        d = self.dice
        items = [ITEMS[d.roll(256) % (16 if d.roll(4) else len(ITEMS))] for _ in range(max(1, count))]
        request = self.world.request(
            *items,
            model=self.name() + d.of("", "", "", "@1", "@2"),
            deadline_s=d.of(30.0, 10.0, 3.0, 1.0, 0.3, 0.0),
            tenant=d.of("x", "y", "z"),
            weight=d.of(1.0, 1.0, 3.0),
            cached=d.of(False, True, True),
            partial=d.of(False, False, True),
        )
        road = self.one(request) if count else self.streamed(request)
        self.callers.append(asyncio.get_running_loop().create_task(road))

    def cancel(self) -> None:
        tasks = self.dice.of(self.callers, self.callers, self.callers, self.operators)
        if tasks:
            tasks[-1 - self.dice.roll(min(len(tasks), 8))].cancel()

    async def one(self, request: Request) -> None:
        try:
            result = await self.world.infer(request)
        except EngineError as error:
            self.allow(request, error)
        else:
            self.right(request, result)

    async def streamed(self, request: Request) -> None:
        read = self.dice.roll(5)
        try:
            async with self.world.stream(request) as stream:
                parts: list[Any] = []
                while len(parts) < read:
                    try:
                        parts.append(await anext(stream.parts))
                    except StopAsyncIteration:
                        break
                assert str(stream.ref) not in self.retired
                name, version = stream.ref.name, stream.ref.version
                wanted = request.inputs[0].id
                for i, part in enumerate(parts):
                    assert (part[0], part[1], part[3], part[4]) == (name, version, wanted, i), part
        except EngineError as error:
            self.allow(request, error)

    def allow(self, request: Request, error: EngineError) -> None:
        """Fails unless this error is this request's own."""
        reported = self.world.outcomes[id(request)]
        assert reported.error is error or isinstance(error, DeadlineExceeded), (reported, error)
        match error:
            case DeadlineExceeded():
                assert self.world.loop.time() >= request.deadline - 1e-6
                assert reported.outcome == "deadline"
            case Draining():
                assert self.drained
            case Refused():
                assert error.retry_after_s > 0
                assert reported.outcome == "refused"
            case ModelNotFound():
                assert "@" in request.model
            case TooManyItems():
                limits = self.scripts[request.model.partition("@")[0]].limits
                assert len(request.inputs) > limits.running + limits.waiting
            case ModelLoadFailed():
                assert self.world.changes().count(f"{reported.ref} failed")
            case _:
                mine = {type(error_of(item)) for item in request.inputs}
                assert type(error) in mine, f"{error!r} is not about {request.inputs}"

    def right(self, request: Request, result: Result) -> None:
        """Fails unless each output is the answer to its input, by the version that the result names."""
        ref = result.ref
        assert str(ref) not in self.retired, f"{ref} answered after it was swapped out"
        assert self.world.outcomes[id(request)].outcome == "ok"
        assert self.world.loop.time() <= request.deadline + 1e-6, "an answer after the deadline"
        t = result.timings
        assert 0 <= t.queue_s <= t.total_s and 0 <= t.batch_s <= t.total_s and t.compute_s >= 0, t
        assert len(result.outputs) == len(request.inputs)
        for item, output in zip(request.inputs, result.outputs, strict=True):
            if item.fate == "ok":
                assert (output[0], output[1], output[3]) == (ref.name, ref.version, item.id), (item, output)
            else:
                assert request.partial, f"{item} has no answer"
                assert type(output) is ERRORS[item.fate], (item, output)

    # Operators

    def operate(self, work: Any) -> None:
        self.operators.append(asyncio.get_running_loop().create_task(work))

    async def load(self, name: str) -> None:
        manager, repository = self.world.engine.manager, self.world.engine.repository
        with suppress(NoRoom, ModelLoadFailed):
            await manager.load(repository.resolve(name))

    async def unload(self, name: str) -> None:
        manager, ref = self.world.engine.manager, self.world.engine.repository.resolve(name).ref
        free = manager.get(ref) is not None and not manager._memory.leases.get(ref)
        assert await manager.unload(ref) is free

    async def swap(self, name: str) -> None:
        d, world = self.dice, self.world
        self.versions[name] += d.of(1, 1, 0)
        script = self.scripts[name]
        fails = d.of(None, None, RuntimeError("bad file"), MemoryError())
        new = Script(
            script.limits,
            base_s=script.base_s,
            load_s=script.load_s,
            memory_bytes=script.memory_bytes,
            threaded=script.threaded,
            inline=script.inline,
            fails_to_load=fails,
            fails_to_warm=d.roll(6) == 5,
        )
        spec = world.spec(name, str(self.versions[name]), script=new, cached=True, on_demand=d.of(True, False))
        before = self.known(name)
        self.retired.discard(str(spec.ref))
        try:
            await world.engine.manager.swap(spec)
        except (ModelLoadFailed, NoRoom):
            return
        for gone in before - self.known(name):
            self.retired.add(str(gone))
            assert world.engine.manager.get(gone) is None, f"{gone} is still in memory"

    def known(self, name: str) -> set[ModelRef]:
        return {spec.ref for spec in self.world.engine.repository if spec.ref.name == name}

    async def drain(self) -> None:
        self.drained = True
        await self.world.engine.drain(5.0)


def error_of(item: Item) -> Exception | None:
    return ERRORS[item.fate]() if item.fate in ERRORS else None
