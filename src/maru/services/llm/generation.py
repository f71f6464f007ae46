"""One answer as it is made, and what it took."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from maru.engine.engine import Stream
from maru.engine.errors import ModelFailed
from maru.engine.types import Clock, ModelRef
from maru.runtimes.generation.types import Finished, Part, Piece, TokenLogprob
from maru.services.llm.schemas import Counts

LEAST_LOGPROB = -9999.0
"""OpenAI's figure for a token that could not have been."""


class Served(NamedTuple):
    """What one answer took, for those who keep account: tokens, and seconds. It has no text."""

    ref: ModelRef
    prompt_tokens: int
    generated_tokens: int
    tokens_per_second: float
    time_to_first_token: float
    total_time: float


class Generation:
    """One answer. `parts` ends with exactly one Finished, or raises; its text has no lone surrogate and its log
    probabilities are finite, so that both can be JSON.

    `heard` is told the time of each part, and `report` of the answer when it is complete. Times are seconds from the
    request on.
    """

    def __init__(
        self,
        model_id: str,
        stream: Stream,
        first: Part,
        began: float,
        clock: Clock,
        heard: Callable[[float], None],
        report: Callable[[Served], None],
    ) -> None:
        self.model_id = model_id
        self.ref = stream.ref
        self.timings = stream.timings
        self.finished: Finished | None = None
        self.first_s: float | None = None
        self.elapsed_s = 0.0
        self._began = began
        self._clock = clock
        self._heard = heard
        self._report = report
        self.parts: AsyncIterator[Part] = self._passed(first, stream.parts)

    async def _passed(self, first: Part, rest: AsyncIterator[Part]) -> AsyncGenerator[Part, None]:
        part: Part | None = first
        while part is not None:
            now = self._clock()
            self._heard(now)
            if isinstance(part, Finished):
                self._complete(part, now)
                yield part
                return
            if isinstance(part, Piece):
                part = clean(part)
                if self.first_s is None:
                    self.first_s = now - self._began
            yield part
            part = await anext(rest, None)
        raise ModelFailed("the model's answer broke off")

    def _complete(self, finished: Finished, now: float) -> None:
        self.finished = finished
        self.elapsed_s = now - self._began
        counts = self.counts()
        self._report(
            Served(
                self.ref,
                counts.prompt_tokens,
                counts.tokens_generated,
                counts.tokens_per_second,
                counts.time_to_first_token,
                counts.time_elapsed,
            )
        )

    def counts(self) -> Counts:
        """Of an answer that is finished."""
        finished, elapsed = self.finished, self.elapsed_s
        assert finished is not None
        return Counts(
            tokens_generated=finished.completion_tokens,
            time_elapsed=round(elapsed, 6),
            tokens_per_second=round(finished.completion_tokens / elapsed, 3) if elapsed > 0 else 0.0,
            model_id=self.model_id,
            prompt_tokens=finished.prompt_tokens,
            cached_tokens=finished.cached_tokens,
            finish_reason=finished.reason,
            time_to_first_token=round(elapsed if self.first_s is None else self.first_s, 6),
            queue_time=round(self.timings.queue_s, 6),
        )

    async def collected(self) -> Collected:
        """All of it."""
        texts: list[str] = []
        logprobs: list[TokenLogprob] = []
        calls: dict[int, dict[str, Any]] = {}
        async for part in self.parts:
            if isinstance(part, Piece):
                texts.append(part.text)
                logprobs.extend(part.logprobs)
                for delta in part.tool_calls or ():
                    _merge(calls, delta)
        assert self.finished is not None  # the parts end with it
        text = "".join(texts)
        return Collected(self, self.finished, text, logprobs, [calls[index] for index in sorted(calls)])


@dataclass(frozen=True, slots=True)
class Collected:
    """An answer in one piece. `tool_calls` are OpenAI's, whole."""

    generation: Generation
    finished: Finished
    text: str
    logprobs: list[TokenLogprob]
    tool_calls: list[dict[str, Any]]


def clean(piece: Piece) -> Piece:
    """The piece as every client can read it."""
    if piece.text.isascii() and not piece.logprobs:
        return piece
    return replace(piece, text=_text(piece.text), logprobs=tuple(map(_logprob, piece.logprobs)))


def _text(text: str) -> str:
    return text.encode(errors="replace").decode()


def _logprob(token: TokenLogprob) -> TokenLogprob:
    value = token.logprob if math.isfinite(token.logprob) else LEAST_LOGPROB
    return replace(token, token=_text(token.token), logprob=value, top=tuple(map(_logprob, token.top)))


def _merge(calls: dict[int, dict[str, Any]], delta: Mapping[str, Any]) -> None:
    """Join OpenAI's delta of a tool call to what came of that call before."""
    given = delta.get("function") or {}
    call = calls.setdefault(
        int(delta.get("index", 0)), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    call["id"] = call["id"] or delta.get("id") or ""
    call["function"]["name"] += given.get("name") or ""
    call["function"]["arguments"] += given.get("arguments") or ""
