"""What a benchmark asks, and how fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from maru.runtimes.generation.types import Prompt


@dataclass(frozen=True, slots=True)
class Level:
    """One load. Either `concurrency` clients that each wait for their answer before they ask again (a closed
    loop), or requests at `rate` a second whatever becomes of those before (an open loop): at random, as
    independent people come, or evenly.

    An open loop with `concurrency` has so many on their way at most. Those beyond wait, and it counts as theirs.
    """

    requests: int
    concurrency: int | None = None
    rate: float | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"

    def __str__(self) -> str:
        return f"{self.concurrency} at once" if self.rate is None else f"{self.rate:.3g}/s"


@dataclass(frozen=True, slots=True)
class Objectives:
    """What makes an answer a good one, in seconds. None asks for nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run. Prompts are asked in turn. `warmups` are asked one by one before anything is measured.

    A `sweep` of n measures one client, then as many as `levels[0]` has, and then n rates between what these two
    came to. Each level is measured `repetitions` times.
    """

    prompts: tuple[Prompt, ...]
    levels: tuple[Level, ...]
    warmup: Prompt
    warmups: int = 3
    sweep: int = 0
    repetitions: int = 1
    objectives: Objectives = Objectives()
    seed: int = 0
    deadline_s: float = 600.0
