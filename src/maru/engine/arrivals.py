"""How models come into memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import Executor

from maru.engine.batcher import Batcher
from maru.engine.departures import Departures
from maru.engine.errors import Draining, ModelLoadFailed, OutOfMemory, Refused
from maru.engine.events import Events, ModelChanged
from maru.engine.memory import Load, Memory, Resident
from maru.engine.model import Model, ModelSpec
from maru.engine.turns import Turns
from maru.engine.types import Clock, ModelRef

log = logging.getLogger(__name__)


class Arrivals:
    """Loads models, in threads and outside any lock, each once for all who wait for it.

    What has to leave for one leaves when that is there, or before, where there is no room for both. If the load
    fails it is brought back, as long as it is `known`.
    """

    def __init__(
        self,
        memory: Memory,
        turns: Turns,
        departures: Departures,
        events: Events,
        clock: Clock,
        threads: Executor,
        known: Callable[[ModelRef], bool],
    ) -> None:
        self._memory = memory
        self._turns = turns
        self._departures = departures
        self._events = events
        self._clock = clock
        self._threads = threads
        self._known = known
        self._load_s: dict[str, float] = {}
        self._restoring: set[asyncio.Task[None]] = set()
        self._closed = False

    async def load(self, spec: ModelSpec) -> Resident:
        """See `Manager.load`."""
        self._departures.bury(spec.ref)
        resident = self._memory.residents.get(spec.ref)
        if resident is not None:
            return resident
        load = self._memory.loads.get(spec.ref)
        if load is None:
            task = asyncio.get_running_loop().create_task(self._load(spec))
            load = self._memory.loads[spec.ref] = Load(spec, self._clock(), task)
            task.add_done_callback(self._landed)
        return await asyncio.shield(load.task)

    def ready_in_s(self, spec: ModelSpec) -> float:
        """See `Manager.ready_in_s`."""
        load = self._memory.loads.get(spec.ref)
        since = load.since if load else self._clock()
        return max(1.0, self._load_s.get(spec.ref.name, 1.0) - (self._clock() - since))

    def close(self) -> None:
        """Nothing comes any more: loads fail from now on, those under way when they end."""
        self._closed = True

    @staticmethod
    def _landed(task: asyncio.Task[Resident]) -> None:
        if not task.cancelled():
            task.exception()  # those who wait for it have it; if all have left, nobody needs it

    async def _load(self, spec: ModelSpec) -> Resident:
        try:
            if self._closed:
                raise Draining("the server is stopping")
            victims = await self._turns.room(spec, lambda: self._room(spec), self._departures.outgoing)
            waits = self._memory.budget(spec.group).patience_s > 0  # what it has waited for, nobody takes meanwhile
            return await self._begin(spec, victims if waits or self._memory.crowded(spec) else [])
        finally:
            del self._memory.loads[spec.ref]
            self._departures.let_go(spec.ref)

    async def _begin(self, spec: ModelSpec, early: list[Resident]) -> Resident:
        self._memory.loads[spec.ref].begun = True
        for victim in early:
            self._departures.unload(victim.spec.ref, "evicted")
        started = self._clock()
        self._events.emit(ModelChanged(spec.ref, "loading"))
        try:
            await self._departures.vacated(spec.group)
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

    @staticmethod
    def _open(spec: ModelSpec) -> Model:
        model = spec.load()
        try:
            model.warm()
        except BaseException:
            model.close()
            raise
        return model

    def _land(self, spec: ModelSpec, model: Model) -> Resident:
        batcher = Batcher(spec.ref, model, spec.limits, self._events, self._clock)
        resident = Resident(spec, model, batcher, used=self._clock(), since=self._clock())
        try:
            if self._closed:
                raise Draining("the server is stopping")
            for victim in self._victims(spec, model.memory_bytes, ()):
                self._departures.unload(victim.spec.ref, "evicted")
        except (Refused, OutOfMemory):
            self._departures.dispose(resident)
            raise
        self._memory.residents[spec.ref] = resident
        return resident

    def _room(self, spec: ModelSpec) -> list[Resident]:
        return self._victims(spec, spec.memory_bytes, self._memory.coming(spec.group))

    def _victims(self, spec: ModelSpec, need: int, coming: Collection[ModelSpec]) -> list[Resident]:
        return self._memory.victims(spec.group, need, coming, self._departures.outgoing(spec.ref.name))

    def _restore(self, evicted: list[Resident]) -> None:
        """A load that failed changes nothing: bring back what had to leave for it."""
        for resident in evicted if not self._closed else ():
            task = asyncio.get_running_loop().create_task(self._reload(resident.spec))
            self._restoring.add(task)
            task.add_done_callback(self._restoring.discard)

    async def _reload(self, spec: ModelSpec) -> None:
        try:
            if self._known(spec.ref):
                await self.load(spec)
        except (ModelLoadFailed, OutOfMemory, Refused):
            log.warning("%s could not be loaded again", spec.ref)
