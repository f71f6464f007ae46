"""Loads for which there is no room yet, since every model in memory is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from maru.engine.errors import NoRoom
from maru.engine.memory import Memory, Resident
from maru.engine.model import ModelSpec
from maru.engine.types import Clock, ModelRef

QUARTERS = 4


class Turns:
    """The loads of each group wait in a line, as long as the group's budget has patience.

    Where requests never cease no model would ever come to rest. So in every second quarter of the wait of whoever is
    first, the new users of one model stand back, each time of another. What is being answered is never cut off.
    """

    def __init__(self, memory: Memory, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock
        self._lines: dict[str, list[ModelSpec]] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    async def room(
        self, spec: ModelSpec, victims: Callable[[], list[Resident]], outgoing: Callable[[], Collection[ModelRef]]
    ) -> list[Resident]:
        """What `victims` finds, as soon as it does not raise NoRoom any more. NoRoom when patience is at its end.

        Those `outgoing` leave of themselves, and need not stand back.
        """
        began, quarter = self._clock(), self._memory.budget(spec.group).patience_s / QUARTERS
        line = self._lines.setdefault(spec.group, [])
        line.append(spec)
        try:
            while True:
                waited = int((self._clock() - began) / quarter) if quarter else QUARTERS
                try:
                    if line[0] is not spec:
                        raise NoRoom("every model in memory is in use, and others wait")
                    return victims()
                except NoRoom:
                    if waited >= QUARTERS or self._closed:
                        raise
                if line[0] is spec:
                    self._part(self._memory.evictable(spec.group, outgoing()), spec.group, waited)
                await self._changed(began + (waited + 1) * quarter)
        finally:
            if line[0] is spec:
                self._memory.parting.pop(spec.group, None)
            line.remove(spec)
            self.again()

    async def stood_back(self, spec: ModelSpec) -> None:
        """Wait while new users of that model stand back."""
        while self._memory.stands_back(spec):
            await self._changed()

    def again(self) -> None:
        """Something was released or unloaded: there may be room where there was none."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Have nobody wait any more."""
        self._closed = True
        self.again()

    def _part(self, evictable: list[ModelRef], group: str, quarter: int) -> None:
        parting = evictable[quarter // 2 % len(evictable)] if evictable and quarter % 2 else None
        before = self._memory.parting.pop(group, None)
        if parting is not None:
            self._memory.parting[group] = parting
        if before != parting:
            self.again()

    async def _changed(self, until: float | None = None) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=None if until is None else max(0.0, until - self._clock()))
        finally:
            self._waiters.discard(waiter)
