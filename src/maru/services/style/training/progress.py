"""How a training tells what it is at."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is told how many of a stage's steps are done, and, when it is over, that all are."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...
