"""starting → ready → draining → stopped."""

from __future__ import annotations

import asyncio
from typing import Literal

from maru.engine.errors import Draining
from maru.engine.events import Events, LifecycleChanged

State = Literal["starting", "ready", "draining", "stopped"]
_ORDER: tuple[State, ...] = ("starting", "ready", "draining", "stopped")


class Lifecycle:
    """The server's one state, the count of running work, and the moment when streams must end.

    Draining only announces itself (readiness fails, so that balancers look elsewhere): work still arriving
    is still done until `close` is called.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._work = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.state: State = "starting"
        self.ending = asyncio.Event()
        """Set when streams still open must send their terminal event and end."""

    def advance(self, state: State) -> None:
        """Go on to `state`; going back, or staying, does nothing."""
        if _ORDER.index(state) > _ORDER.index(self.state):
            self.state = state
            self._events.emit(LifecycleChanged(state))

    def __enter__(self) -> None:
        if self._closed:
            raise Draining("the server is stopping", retry_after_s=1.0)
        self._work += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._work -= 1
        if not self._work:
            self._idle.set()

    def close(self) -> None:
        """Refuse new work from now on."""
        self.advance("draining")
        self._closed = True

    async def drained(self, grace_s: float) -> bool:
        """Wait for running work, `grace_s` at most, then have streams end. Whether all work was done."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        self.ending.set()
        return not self._work
