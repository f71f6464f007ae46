"""The road that every request takes. Read this first.

A name becomes a version, and a lease keeps that version what it is. What the cache knows, or is computing
for somebody else, isn't computed again. The rest waits for slots, joins batches, and comes back as outputs
in the order of the inputs. Leaving early, for whatever reason, gives back all that was held.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from maru.engine.admission import Admission
from maru.engine.cache import Cache, Entry, ResultStore
from maru.engine.events import Events
from maru.engine.journey import Journey
from maru.engine.lifecycle import Lifecycle
from maru.engine.manager import Lease, Manager
from maru.engine.memory import Budget
from maru.engine.repository import Repository
from maru.engine.types import Clock, ModelRef, Request, Result, Timings


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes in parts. `timings` fill as it goes."""

    parts: AsyncIterator[Any]
    ref: ModelRef
    timings: Timings


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One model's line, in items. `estimated_wait_s` is None until a rate was measured."""

    running: int
    waiting: int
    max_running: int
    max_waiting: int
    estimated_wait_s: float | None


class Engine:
    """Serves models: `infer` for an answer, `stream` for one that comes in parts."""

    def __init__(
        self,
        *,
        clock: Clock = time.monotonic,
        cache_bytes: int = 64 * 2**20,
        cache_ttl_s: float = 3600.0,
        result_store: ResultStore | None = None,
        max_models: int = 0,
        max_model_bytes: int = 0,
        budgets: Mapping[str, Budget] | None = None,
    ) -> None:
        """`max_models` and `max_model_bytes` (0: no bound) are the budget of models that name no group, `budgets`
        those of the others."""
        self.clock = clock
        self.events = Events()
        self.lifecycle = Lifecycle(self.events)
        self.repository = Repository()
        self.cache = Cache(self.events, clock, cache_bytes, cache_ttl_s, result_store)
        self.admission = Admission(self.events, clock)
        own = Budget(max_models, max_model_bytes)
        self.manager = Manager(self.repository, self.events, clock, {"": own, **(budgets or {})})

    async def infer(self, request: Request) -> Result:
        """The outputs for all inputs of the request, or the first error among them (see `engine.errors`)."""
        with (
            Journey(request, self.lifecycle, self.events, self.clock) as journey,
            self.manager.lease(self.repository.resolve(request.model)) as lease,
        ):
            journey.ref = lease.spec.ref
            with self.cache.once(lease.spec, request) as entry:
                while todo := await entry.todo():
                    await self._compute(request, lease, entry, todo)
                journey.cache = entry.state
                return entry.result()

    async def _compute(self, request: Request, lease: Lease, entry: Entry, todo: Sequence[int]) -> None:
        spec = lease.spec
        async with self.admission.enter(spec.ref.name, spec.limits, request, todo) as admitted:
            resident = await lease.resident()
            entry.fill(todo, await resident.batcher.submit(admitted))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        """`async with` it: the parts of the answer to the request's one input, as they are made.

        The slot and the lease are held until the context is left, however much was read.
        """
        with (
            Journey(request, self.lifecycle, self.events, self.clock) as journey,
            self.manager.lease(self.repository.resolve(request.model)) as lease,
        ):
            spec = lease.spec
            journey.ref = spec.ref
            async with self.admission.enter(spec.ref.name, spec.limits, request, (0,)):
                resident = await lease.resident()
                async with resident.batcher.stream(request) as parts:
                    yield Stream(parts, spec.ref, request.timings)

    def status(self, model: str) -> QueueStatus:
        """How busy the model's line is now."""
        spec = self.repository.resolve(model)
        line = self.admission.line(spec.ref.name, spec.limits)
        limits, wait = line.limits, line.estimated_wait_s()
        return QueueStatus(line.running, line.waiting, limits.running, limits.waiting, wait)

    async def drain(self, grace_s: float) -> bool:
        """Refuse new work, wait for what runs, end what still streams; whether all of it was done in time."""
        self.lifecycle.close()
        return await self.lifecycle.drained(grace_s)

    async def close(self) -> None:
        """Unload everything. The engine can't be used afterwards."""
        await self.manager.close()
        self.lifecycle.advance("stopped")
