"""Which models are in memory.

Whoever uses a version holds a lease on it, from the moment its name was resolved until the answer is made. A
leased version is never evicted, and a version that was swapped out goes on until its last lease ends. Loads
run in threads, outside any lock, and are shared by all who wait for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Self

from maru.engine.batcher import Batcher
from maru.engine.errors import Draining, ModelLoadFailed, ModelNotReady, NoRoom, OutOfMemory, Refused
from maru.engine.events import Events, ModelChanged
from maru.engine.memory import Budget, Load, Memory, Resident
from maru.engine.model import Model, ModelSpec
from maru.engine.repository import LATEST, Repository
from maru.engine.turns import Turns
from maru.engine.types import Clock, ModelRef

log = logging.getLogger(__name__)

CLOSE_S = 10.0
"""How long `close` waits for models that still load or compute."""


class Lease:
    """One holder's claim on one version."""

    def __init__(self, manager: Manager, spec: ModelSpec) -> None:
        self._manager = manager
        self._using = False
        self.spec = spec

    def __enter__(self) -> Self:
        self._manager.claim(self.spec.ref)
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.release(self.spec.ref, self._using)

    async def resident(self) -> Resident:
        """The loaded model. Loads it if its spec says so; ModelNotReady otherwise. NoRoom when others are in use for
        longer than its budget has patience."""
        resident = await self._manager.resident(self.spec)
        if not self._using:
            self._using = True
            self._manager.use(self.spec.ref)
        return resident


class Manager:
    """Loads, swaps and evicts. What is kept in memory of each group of models stays within its budget; one without
    a budget has no bound."""

    def __init__(
        self,
        repository: Repository,
        events: Events,
        clock: Clock,
        budgets: Mapping[str, Budget] | None = None,
        threads: int = 2,
    ) -> None:
        self._repository = repository
        self._events = events
        self._clock = clock
        self._memory = Memory(budgets or {})
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="maru-load")
        self._load_s: dict[str, float] = {}
        self._retired: dict[ModelRef, asyncio.Future[None]] = {}
        self._swapping: dict[str, asyncio.Lock] = {}
        self._leaving: set[ModelRef] = set()
        self._closing: dict[asyncio.Task[None], Resident] = {}
        self._restoring: set[asyncio.Task[None]] = set()
        self._turns = Turns(self._memory, clock)
        self._closed = False

    def lease(self, spec: ModelSpec) -> Lease:
        """`with` it: the version stays what it is while held."""
        return Lease(self, spec)

    def claim(self, ref: ModelRef) -> None:
        _count(self._memory.leases, ref, 1)

    def use(self, ref: ModelRef) -> None:
        _count(self._memory.using, ref, 1)

    def release(self, ref: ModelRef, used: bool = False) -> None:
        if (resident := self._memory.residents.get(ref)) is not None:
            resident.used = self._clock()
        if used:
            _count(self._memory.using, ref, -1)
        _count(self._memory.leases, ref, -1)
        self._free(ref)

    async def resident(self, spec: ModelSpec) -> Resident:
        """The loaded model of a leased version."""
        while True:
            await self._turns.stood_back(spec)
            died = self._bury(spec.ref)
            resident = self._memory.residents.get(spec.ref)
            if resident is None:
                if not spec.on_demand and not died:
                    raise ModelNotReady("the model is not loaded yet", self.ready_in_s(spec))
                resident = await self.load(spec)
            if self._memory.residents.get(spec.ref) is resident and not self._memory.stands_back(spec):
                resident.used = self._clock()
                return resident

    def ready_in_s(self, spec: ModelSpec) -> float:
        """Seconds until the model should be loaded, from how long it took before; 1 when that isn't known."""
        load = self._memory.loads.get(spec.ref)
        since = load.since if load else self._clock()
        return max(1.0, self._load_s.get(spec.ref.name, 1.0) - (self._clock() - since))

    def get(self, ref: ModelRef) -> Resident | None:
        """The resident of that version, if it is in memory and can answer."""
        resident = self._memory.residents.get(ref)
        return resident if resident is not None and resident.model.alive() else None

    def loading(self, ref: ModelRef) -> bool:
        return ref in self._memory.loads

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self._memory.residents.values()))

    async def load(self, spec: ModelSpec) -> Resident:
        """Bring a version into memory; all who ask for it meanwhile wait for the same load.

        ModelLoadFailed, NoRoom, OutOfMemory: nothing has changed then.
        """
        self._bury(spec.ref)
        resident = self._memory.residents.get(spec.ref)
        if resident is not None:
            return resident
        load = self._memory.loads.get(spec.ref)
        if load is None:
            task = asyncio.get_running_loop().create_task(self._load(spec))
            load = self._memory.loads[spec.ref] = Load(spec, self._clock(), task)
            task.add_done_callback(self._landed)
        return await asyncio.shield(load.task)

    @staticmethod
    def _landed(task: asyncio.Task[Resident]) -> None:
        if not task.cancelled():
            task.exception()  # those who wait for it have it; if all have left, nobody needs it

    async def keep_trying(self, spec: ModelSpec, for_s: float, every_s: float) -> Resident:
        """Load, and try again every `every_s` seconds for `for_s` seconds while that fails, unless another
        version has taken its place."""
        until = self._clock() + for_s
        known = self._knows(spec.ref)
        while True:
            try:
                return await self.load(spec)
            except (ModelLoadFailed, NoRoom):
                if self._clock() + every_s > until:
                    raise
                await asyncio.sleep(every_s)
                if known and not self._knows(spec.ref):
                    raise

    async def swap(self, spec: ModelSpec, *aliases: str) -> Resident:
        """Make `spec` what these aliases (by default `latest`) of its model stand for, in one step.

        It is loaded and warm before they move. Returns when what they stood for before has given its last
        answer and is unloaded, so that nothing is answered by it afterwards. Until they move it serves on: it is
        not evicted for the new one. Meanwhile there may be a model more than the budget says, but never more bytes
        (NoRoom, OutOfMemory).
        """
        aliases = aliases or (LATEST,)
        async with self._swapping.setdefault(spec.ref.name, asyncio.Lock()):
            with self.lease(spec), self._outgoing(spec, aliases):
                try:
                    resident = await self.load(spec)
                except BaseException:
                    if not self._knows(spec.ref):  # where nobody can ask for it, it must not stay
                        self._retire(spec.ref)
                    raise
                replaced = self._repository.add(spec, *aliases)
                self._recall(spec.ref)
            self._events.emit(ModelChanged(spec.ref, "swapped"))
            for old in replaced:
                self._retire(old.ref)
            for last in [last for ref, last in self._retired.items() if ref.name == spec.ref.name]:
                await asyncio.shield(last)
            return resident

    @contextmanager
    def _outgoing(self, spec: ModelSpec, aliases: Collection[str]) -> Iterator[None]:
        """Hold what `spec` will take the place of."""
        known = self._repository.aliases(spec.ref.name)
        stay = {version for alias, version in known.items() if alias not in aliases}
        versions = {known[alias] for alias in aliases if alias in known} - stay | {spec.ref.version}
        with ExitStack() as stack:
            for old in list(self._repository):
                if old.ref.name == spec.ref.name and old.ref.version in versions and old.ref != spec.ref:
                    stack.enter_context(self.lease(old))
                    self._leaving.add(old.ref)
                    stack.callback(self._leaving.discard, old.ref)
            yield

    def _knows(self, ref: ModelRef) -> bool:
        return any(spec.ref == ref for spec in self._repository)

    def _retire(self, ref: ModelRef) -> None:
        """Unload it when its last lease ends, whether anybody waits for that or not."""
        self._retired.setdefault(ref, asyncio.get_running_loop().create_future())
        self._free(ref)

    def _free(self, ref: ModelRef) -> None:
        self._turns.again()
        if ref in self._retired and ref not in self._memory.leases and ref not in self._memory.loads:
            self._unload(ref, "unloaded")
            self._retired.pop(ref).set_result(None)

    def _recall(self, ref: ModelRef) -> None:
        """A retired version that is wanted again stays."""
        last = self._retired.pop(ref, None)
        if last is not None:
            last.set_result(None)

    async def unload(self, ref: ModelRef) -> bool:
        """Free a version that nobody holds; whether it was. A later request may load it again."""
        if ref not in self._memory.residents or self._memory.leases.get(ref):
            return False
        self._unload(ref, "unloaded")
        return True

    async def close(self) -> None:
        """Unload everything, whether held or not. Called when no more work runs.

        What still loads or computes `CLOSE_S` seconds later is left to the end of the process.
        """
        self._closed = True
        self._turns.close()
        for ref in list(self._memory.residents):
            self._unload(ref, "unloaded")
        until = self._clock() + CLOSE_S
        while ending := {*self._closing, *(load.task for load in self._memory.loads.values())}:
            if not (await asyncio.wait(ending, timeout=until - self._clock()))[0]:
                break
        self._threads.shutdown(wait=False)

    async def _load(self, spec: ModelSpec) -> Resident:
        try:
            if self._closed:
                raise Draining("the server is stopping")
            victims = await self._turns.room(spec, partial(self._room, spec), self._departing)
            waits = self._memory.budget(spec.group).patience_s > 0  # what it has waited for, nobody takes meanwhile
            return await self._begin(spec, victims if waits or self._memory.crowded(spec) else [])
        finally:
            del self._memory.loads[spec.ref]
            self._free(spec.ref)

    async def _begin(self, spec: ModelSpec, early: list[Resident]) -> Resident:
        self._memory.loads[spec.ref].begun = True
        for victim in early:
            self._unload(victim.spec.ref, "evicted")
        started = self._clock()
        self._events.emit(ModelChanged(spec.ref, "loading"))
        try:
            await self._vacated(spec.group)
            resident = self._land(spec, await self._opened(spec))
        except BaseException as error:
            cause = error.__cause__ or error
            self._events.emit(ModelChanged(spec.ref, "failed", self._clock() - started, error=cause))
            self._restore(early)
            raise
        self._load_s[spec.ref.name] = seconds = self._clock() - started
        memory_bytes = resident.model.memory_bytes
        self._events.emit(ModelChanged(spec.ref, "loaded", seconds, memory_bytes=memory_bytes))
        return resident

    async def _opened(self, spec: ModelSpec) -> Model:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._open, spec)
        except (asyncio.CancelledError, OutOfMemory):
            raise
        except BaseException as error:
            raise ModelLoadFailed("the model could not be loaded") from error

    def _land(self, spec: ModelSpec, model: Model) -> Resident:
        batcher = Batcher(spec.ref, model, spec.limits, self._events, self._clock)
        resident = Resident(spec, model, batcher, used=self._clock(), since=self._clock())
        try:
            if self._closed:
                raise Draining("the server is stopping")
            for victim in self._victims(spec, model.memory_bytes, ()):
                self._unload(victim.spec.ref, "evicted")
        except (Refused, OutOfMemory):
            self._dispose(resident)
            raise
        self._memory.residents[spec.ref] = resident
        return resident

    @staticmethod
    def _open(spec: ModelSpec) -> Model:
        model = spec.load()
        try:
            model.warm()
        except BaseException:
            model.close()
            raise
        return model

    async def _vacated(self, group: str) -> None:
        """Wait until what was unloaded has given back the memory that what is coming takes."""
        most = self._memory.budget(group).bytes
        while most and (closing := {task: r for task, r in self._closing.items() if r.spec.group == group}):
            leaving = sum(resident.model.memory_bytes for resident in closing.values())
            if self._memory.bytes(group, self._memory.coming(group)) + leaving <= most:
                return
            await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)

    def _room(self, spec: ModelSpec) -> list[Resident]:
        return self._victims(spec, spec.memory_bytes, self._memory.coming(spec.group))

    def _departing(self) -> set[ModelRef]:
        return self._leaving | self._retired.keys()

    def _victims(self, spec: ModelSpec, need: int, coming: Collection[ModelSpec]) -> list[Resident]:
        outgoing = {ref for ref in self._leaving if ref.name == spec.ref.name} | self._retired.keys()
        return self._memory.victims(spec.group, need, coming, outgoing)

    def _restore(self, evicted: list[Resident]) -> None:
        """A load that failed changes nothing: bring back what had to leave for it."""
        for resident in evicted if not self._closed else ():
            task = asyncio.get_running_loop().create_task(self._reload(resident.spec))
            self._restoring.add(task)
            task.add_done_callback(self._restoring.discard)

    async def _reload(self, spec: ModelSpec) -> None:
        try:
            if self._knows(spec.ref):
                await self.load(spec)
        except (ModelLoadFailed, OutOfMemory, Refused):
            log.warning("%s could not be loaded again", spec.ref)

    def _unload(self, ref: ModelRef, change: str) -> None:
        resident = self._memory.residents.pop(ref, None)
        if resident is not None:
            self._turns.again()
            self._dispose(resident)
            self._events.emit(ModelChanged(ref, "evicted" if change == "evicted" else "unloaded"))

    def _bury(self, ref: ModelRef) -> bool:
        """Forget a model that can't answer any more, whoever holds it; whether it was one."""
        resident = self._memory.residents.get(ref)
        if resident is None or resident.model.alive():
            return False
        log.warning("%s has ended by itself, and is loaded again", ref)
        self._unload(ref, "unloaded")
        return True

    def _dispose(self, resident: Resident) -> None:
        closing = asyncio.get_running_loop().create_task(self._close(resident))
        self._closing[closing] = resident
        closing.add_done_callback(self._closing.pop)

    async def _close(self, resident: Resident) -> None:
        """Close the model once no thread is in it: a computation whose callers have all left goes on."""
        await resident.batcher.close()
        await asyncio.get_running_loop().run_in_executor(self._threads, resident.model.close)


def _count(counts: dict[ModelRef, int], ref: ModelRef, change: int) -> None:
    """Add to one count; those that are zero are not kept."""
    counts[ref] = counts.get(ref, 0) + change
    if not counts[ref]:
        del counts[ref]
