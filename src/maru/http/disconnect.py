"""Stop the work when nobody waits for the answer any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive

from maru.engine.cutoff import Cutoff

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed its connection before it was answered. There is nobody to tell."""


DEPARTURE = "maru.departure"
"""Where a scope of our own server has its `Departure`."""


class Departure:
    """The end of a client's connection, or of the response to it, told to whoever works for that client."""

    __slots__ = ("_gone", "_tell", "told")

    def __init__(self) -> None:
        self.told = False
        """Whether it will be told: only of a request that has been received whole."""
        self._gone = False
        self._tell: Callable[[], None] | None = None

    def happen(self) -> None:
        self._gone = True
        if self._tell is not None:
            self._tell()

    def watched_by(self, tell: Callable[[], None] | None) -> None:
        """Call `tell` when the client leaves, at once if it has left; None ends that."""
        self._tell = tell
        if self._gone and tell is not None:
            tell()


async def unless_gone(receive: Receive, work: Awaitable[T], departure: Departure | None = None) -> T:
    """What `work` returns; as soon as the client disconnects it is cancelled, and ClientGone is raised.

    A server that has a `departure` to watch spares a task that waits for it in `receive`.

    The work runs in the calling task, so its context managers, timeouts and cancel scopes nest as usual,
    and an outer cancellation passes through untouched. The request's body must have been read: what is
    left of it is dropped, and an error while receiving it (too slow, too large) ends the work and is raised.
    """
    failure: Exception | None = None

    async def watch() -> None:
        nonlocal failure
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except Exception as exc:
            failure = exc
        connected.after(0.0)

    connected = Cutoff()
    try:
        with connected:
            if departure is not None and departure.told:
                departure.watched_by(lambda: connected.after(0.0))
                try:
                    return await work
                finally:
                    departure.watched_by(None)
            watcher = asyncio.create_task(watch())
            try:
                return await work
            finally:
                watcher.cancel()
    except Exception as exc:
        if not connected.reached:
            raise
        if failure is not None:
            raise failure from None
        raise ClientGone from exc
