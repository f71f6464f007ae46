"""A part of a task that can be cut off."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Cutoff:
    """`with` it: what the task does within is cancelled `after` a time, and TimeoutError is raised instead.

    What `asyncio.timeout` promises, for work that is done thousands of times a second: a cancellation that came from
    somewhere else passes through, and no callback is made where none is asked for.
    """

    __slots__ = ("_before", "_handle", "_task", "reached")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._before = 0
        self._handle: asyncio.Handle | None = None
        self.reached = False
        """Whether it was cut off."""

    def __enter__(self) -> Self:
        self._task = task = asyncio.current_task()
        assert task is not None, "only a task can be cut off"
        self._before = task.cancelling()
        return self

    def after(self, seconds: float) -> None:
        """Cut it off then; with 0, as soon as the event loop comes to it."""
        if self._handle is not None:
            self._handle.cancel()
        if self._task is not None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        if self._task is not None:
            self.reached = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        # With a cancellation more than ours outstanding, it is not for us to take it for the end of the work.
        if self.reached and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
