"""What was seen of each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from maru.runtimes.generation.types import Finished, Part, Piece
from maru.services.llm.benchmarks.plan import Level

Outcome = Literal["ok", "error", "incomplete", "cancelled"]


@dataclass(slots=True)
class Record:
    """One request. Times are seconds since its level began; `texts` are those of the pieces that had text.

    `intended` is when it should have been sent, `sent` when it was. What the model did not tell is None.
    """

    number: int
    prompt: int
    intended: float
    sent: float
    texts: list[float] = field(default_factory=list)
    ended: float | None = None
    outcome: Outcome = "incomplete"
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prefill_s: float | None = None
    decode_s: float | None = None

    def see(self, part: Part, at: float) -> None:
        """A part came."""
        if isinstance(part, Piece):
            if part.text or part.tool_calls:
                self.texts.append(at)
        elif isinstance(part, Finished):
            self.ended, self.outcome = at, "ok"
            self.finish_reason = part.reason
            self.prompt_tokens, self.completion_tokens = part.prompt_tokens, part.completion_tokens
            self.cached_tokens = part.cached_tokens
            self.prefill_s, self.decode_s = part.prefill_s or None, part.decode_s or None

    @property
    def queue_s(self) -> float:
        return self.sent - self.intended

    @property
    def ttft_s(self) -> float | None:
        return self.texts[0] - self.intended if self.texts else None

    @property
    def e2e_s(self) -> float | None:
        return None if self.ended is None else self.ended - self.intended

    @property
    def tpot_s(self) -> float | None:
        """None for an answer of one token, which has no next."""
        if not self.texts or self.ended is None or (self.completion_tokens or 0) < 2:
            return None
        return (self.ended - self.texts[0]) / ((self.completion_tokens or 0) - 1)

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in zip(self.texts, self.texts[1:], strict=False)]


@dataclass(slots=True)
class Window:
    """One level, measured once. `seconds` is from when the first request was due to the end of the last answer,
    without the time in which the benchmark stood aside for others; `cpu_s` is what the server's processes used.
    """

    level: Level
    records: list[Record]
    seconds: float
    cpu_s: float | None = None
    yielded: int = 0
    """Requests that were broken off for the sake of others', and asked again."""
    yielded_s: float = 0.0


CpuClock = Callable[[], float | None]
"""CPU seconds that the server has used so far; None where that can't be told."""
