"""Who is told how far a training has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Told the name of a stage, and which part of it is done, 0 to 1."""


def silent(stage: str, part: float) -> None:
    """Nobody is told."""
