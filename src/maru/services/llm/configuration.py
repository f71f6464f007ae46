"""The generation service's settings."""

from __future__ import annotations

from dataclasses import dataclass

TIMEOUT_S = 300.0

GROUP = "llm"
"""The engine's group of models whose budget of memory theirs is."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`pinned` models are loaded at the start and stay in memory. Behind those that a model is answering, `waiting`
    requests wait for it. The folder of models is looked at every `look_s`, and when there was no answer for `beat_s`
    one is tried."""

    timeout_s: float = TIMEOUT_S
    pinned: tuple[str, ...] = ()
    waiting: int = 64
    look_s: float = 5.0
    beat_s: float = 60.0
