"""Standing aside: people who wait for an answer come before a benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from maru.engine.events import Event, Events, QueueChanged


class Courtesy(Protocol):
    """Who else is to be considered."""

    @property
    def busy(self) -> bool:
        """Whether somebody else is here."""
        ...

    @contextmanager
    def ours(self, cut: asyncio.Timeout) -> Iterator[None]:
        """`with` it, around one of the benchmark's own requests, which `cut` breaks off when somebody else comes."""
        ...

    async def quiet(self) -> None:
        """Wait until nobody else is here, and has not been for a moment."""
        ...


class Alone:
    """Nobody is considered: the server is another's, or is here for the benchmark."""

    busy = False

    @contextmanager
    def ours(self, cut: asyncio.Timeout) -> Iterator[None]:
        yield

    async def quiet(self) -> None:
        return


class InEngine:
    """Everybody else who has a request in the same engine, for whatever model: they share the machine.

    It is known from the lengths of the engine's lines, less the benchmark's own requests. `quiet_s` is how long
    nobody must have been there, so that a benchmark doesn't go on between the two requests of one conversation.
    """

    def __init__(self, events: Events, quiet_s: float = 0.5) -> None:
        self._quiet_s = quiet_s
        self._lines: dict[str, int] = {}
        self._ours: set[asyncio.Timeout] = set()
        self._left = 0.0
        self._free = asyncio.Event()
        self._free.set()
        events.subscribe(self._event)

    @property
    def busy(self) -> bool:
        return not self._free.is_set()

    @contextmanager
    def ours(self, cut: asyncio.Timeout) -> Iterator[None]:
        self._ours.add(cut)
        try:
            yield
        finally:
            self._ours.discard(cut)
            self._look()

    async def quiet(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.wait()
            left = self._left + self._quiet_s - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(left)

    def _event(self, event: Event) -> None:
        if isinstance(event, QueueChanged):
            self._lines[event.model] = event.running + event.waiting
            self._look()

    def _look(self) -> None:
        """A request of ours joins its line in the same turn of the loop in which it is counted, so the lines never
        hold one of ours that is not."""
        others = sum(self._lines.values()) - len(self._ours) > 0
        if others and self._free.is_set():
            self._free.clear()
            for cut in self._ours:
                if not cut.expired():  # or it is on its way out already
                    cut.reschedule(0.0)
        elif not others and not self._free.is_set():
            self._free.set()
            self._left = asyncio.get_running_loop().time()
