"""Stop the work when nobody waits for the answer any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed its connection before it was answered. There is nobody to tell."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` returns; as soon as the client disconnects it is cancelled, and ClientGone is raised.

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
        # A timeout that expires by hand: asyncio.timeout already tells its own cancellation from others'.
        connected.reschedule(0.0)

    try:
        async with asyncio.timeout(None) as connected:
            watcher = asyncio.create_task(watch())
            try:
                return await work
            finally:
                watcher.cancel()
    except Exception as exc:
        if not connected.expired():
            raise
        if failure is not None:
            raise failure from None
        raise ClientGone from exc
