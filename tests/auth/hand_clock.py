"""A clock for tests."""

from __future__ import annotations


class HandClock:
    """A clock that goes only when it is told to, in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
