"""Which models are in memory.

Whoever uses a version holds a lease on it, from the moment its name was resolved until the answer is made. A
leased version is never evicted, and a version that was swapped out goes on until its last lease ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Self

from maru.engine.arrivals import Arrivals
from maru.engine.departures import Departures
from maru.engine.errors import ModelNotReady
from maru.engine.events import Events, ModelChanged
from maru.engine.memory import Budget, Memory, Resident
from maru.engine.model import ModelSpec
from maru.engine.repository import LATEST, Repository
from maru.engine.turns import Turns
from maru.engine.types import Clock, ModelRef

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
        self._turns = Turns(self._memory, clock)
        self._departures = Departures(self._memory, self._turns, events, self._threads)
        self._arrivals = Arrivals(
            self._memory, self._turns, self._departures, events, clock, self._threads, self._knows
        )
        self._swapping: dict[str, asyncio.Lock] = {}

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
        self._departures.let_go(ref)

    async def resident(self, spec: ModelSpec) -> Resident:
        """The loaded model of a leased version."""
        while True:
            await self._turns.stood_back(spec)
            died = self._departures.bury(spec.ref)
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
        return self._arrivals.ready_in_s(spec)

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
        return await self._arrivals.load(spec)

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
                        self._departures.retire(spec.ref)
                    raise
                replaced = self._repository.add(spec, *aliases)
                self._departures.recall(spec.ref)
            self._events.emit(ModelChanged(spec.ref, "swapped"))
            for old in replaced:
                self._departures.retire(old.ref)
            await self._departures.gone(spec.ref.name)
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
                    stack.enter_context(self._departures.replaced(old.ref))
            yield

    def _knows(self, ref: ModelRef) -> bool:
        return any(spec.ref == ref for spec in self._repository)

    async def unload(self, ref: ModelRef) -> bool:
        """Free a version that nobody holds; whether it was. A later request may load it again."""
        if ref not in self._memory.residents or self._memory.leases.get(ref):
            return False
        self._departures.unload(ref)
        return True

    async def close(self) -> None:
        """Unload everything, whether held or not. Called when no more work runs.

        What still loads or computes `CLOSE_S` seconds later is left to the end of the process.
        """
        self._arrivals.close()
        self._turns.close()
        for ref in list(self._memory.residents):
            self._departures.unload(ref)
        until = self._clock() + CLOSE_S
        while ending := {*self._departures.closing, *(load.task for load in self._memory.loads.values())}:
            if not (await asyncio.wait(ending, timeout=until - self._clock()))[0]:
                break
        self._threads.shutdown(wait=False)


def _count(counts: dict[ModelRef, int], ref: ModelRef, change: int) -> None:
    """Add to one count; those that are zero are not kept."""
    counts[ref] = counts.get(ref, 0) + change
    if not counts[ref]:
        del counts[ref]
