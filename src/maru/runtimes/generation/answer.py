"""What a worker answers, as the parts of `types`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from maru.runtimes.generation.types import Finished, FinishReason, Part, Piece, Progress, TokenLogprob

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


class Answer:
    """Takes the events of one answer, gives its parts; `finished` once the last event has come."""

    def __init__(self, top_logprobs: int | None) -> None:
        self._top = top_logprobs or 0
        self._reason: FinishReason = "stop"
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}

    def parts(self, event: Mapping[str, Any]) -> Iterator[Part]:
        """The parts in one event: a Progress, a Piece, or nothing."""
        if progress := event.get("prompt_progress"):
            yield Progress(progress["processed"], progress["total"])
        self._usage = event.get("usage") or self._usage
        self._timings = event.get("timings") or self._timings
        for choice in event["choices"]:
            self._reason = _REASONS.get(choice["finish_reason"], self._reason)
            delta = choice.get("delta", choice)
            text = delta.get("text") or delta.get("content") or ""
            calls = delta.get("tool_calls")
            probabilities = choice.get("logprobs")
            if text or calls or probabilities:
                yield Piece(text, self._logprobs(probabilities) if probabilities else (), calls)

    def finished(self) -> Finished:
        usage, timings = self._usage, self._timings
        return Finished(
            reason=self._reason,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
            prefill_s=timings.get("prompt_ms", 0.0) / 1000,
            decode_s=timings.get("predicted_ms", 0.0) / 1000,
        )

    def _logprobs(self, given: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
        return tuple(
            _logprob(token, tuple(map(_logprob, token.get("top_logprobs", ())[: self._top])))
            for token in given.get("content") or ()
        )


def _logprob(token: Mapping[str, Any], top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    return TokenLogprob(token["token"], token["logprob"], bytes(token.get("bytes") or b""), token.get("id"), top)
