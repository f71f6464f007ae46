"""How models leave memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Literal

from maru.engine.events import Events, ModelChanged
from maru.engine.memory import Memory, Resident
from maru.engine.turns import Turns
from maru.engine.types import ModelRef

log = logging.getLogger(__name__)


class Departures:
    """What leaves memory: at once, or, once it is retired, as its last lease ends.

    A model that has left is closed when no thread is in it any more. Only then has it given its memory back.
    """

    def __init__(self, memory: Memory, turns: Turns, events: Events, threads: Executor) -> None:
        self._memory = memory
        self._turns = turns
        self._events = events
        self._threads = threads
        self._retired: dict[ModelRef, asyncio.Future[None]] = {}
        self._replaced: set[ModelRef] = set()
        self._closing: dict[asyncio.Task[None], Resident] = {}

    def unload(self, ref: ModelRef, change: Literal["unloaded", "evicted"] = "unloaded") -> None:
        """Take it out of memory, whoever holds it."""
        resident = self._memory.residents.pop(ref, None)
        if resident is not None:
            self._turns.again()
            self.dispose(resident)
            self._events.emit(ModelChanged(ref, change))

    def bury(self, ref: ModelRef) -> bool:
        """Forget a model that can't answer any more, whoever holds it; whether it was one."""
        resident = self._memory.residents.get(ref)
        if resident is None or resident.model.alive():
            return False
        log.warning("%s has ended by itself, and is loaded again", ref)
        self.unload(ref)
        return True

    def retire(self, ref: ModelRef) -> None:
        """Unload it when its last lease ends, whether anybody waits for that or not."""
        self._retired.setdefault(ref, asyncio.get_running_loop().create_future())
        self.let_go(ref)

    def let_go(self, ref: ModelRef) -> None:
        """A lease of it has ended, or its load: if it is retired, and that was the last, it leaves."""
        self._turns.again()
        if ref in self._retired and ref not in self._memory.leases and ref not in self._memory.loads:
            self.unload(ref)
            self._retired.pop(ref).set_result(None)

    def recall(self, ref: ModelRef) -> None:
        """A retired version that is wanted again stays."""
        last = self._retired.pop(ref, None)
        if last is not None:
            last.set_result(None)

    async def gone(self, name: str) -> None:
        """Wait until no version of that model that is retired now is in memory."""
        for last in [last for ref, last in self._retired.items() if ref.name == name]:
            await asyncio.shield(last)

    @contextmanager
    def replaced(self, ref: ModelRef) -> Iterator[None]:
        """Another version is about to take its place."""
        self._replaced.add(ref)
        try:
            yield
        finally:
            self._replaced.discard(ref)

    def outgoing(self, name: str | None = None) -> set[ModelRef]:
        """What leaves of itself: all that is retired, and what is being replaced, of that model or of any."""
        return {ref for ref in self._replaced if name in (None, ref.name)} | self._retired.keys()

    def dispose(self, resident: Resident) -> None:
        """Close a model that is not in memory, or not any more."""
        closing = asyncio.get_running_loop().create_task(self._close(resident))
        self._closing[closing] = resident
        closing.add_done_callback(self._closing.pop)

    @property
    def closing(self) -> Collection[asyncio.Task[None]]:
        """Of the models that are not closed yet."""
        return self._closing.keys()

    async def vacated(self, group: str) -> None:
        """Wait until what has left the group has given back the memory that what is coming takes."""
        most = self._memory.budget(group).bytes
        while most and (closing := {task: r for task, r in self._closing.items() if r.spec.group == group}):
            leaving = sum(resident.model.memory_bytes for resident in closing.values())
            if self._memory.bytes(group, self._memory.coming(group)) + leaving <= most:
                return
            await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)

    async def _close(self, resident: Resident) -> None:
        """Close the model once no thread is in it: a computation whose callers have all left goes on."""
        await resident.batcher.close()
        await asyncio.get_running_loop().run_in_executor(self._threads, resident.model.close)
