"""What a generation model is given, and what it gives: one shape for every runtime and every door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when to stop. None leaves the model's own default.

    `max_tokens` None means: until the model stops, or its context is full. `min_tokens` and `ignore_eos` are
    for benchmarks, whose answers need a fixed length. A stop string isn't part of the text.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many alternatives to name beside each token; 0 names the token's own only."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One input: exactly one of `text`, `tokens` and `messages` (OpenAI's chat messages) is given."""

    text: str | None = None
    tokens: Sequence[int] | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Any = None
    json_schema: Mapping[str, Any] | None = None
    """The answer is JSON that this schema allows; `{}` allows any JSON object."""
    grammar: str | None = None
    """The answer is a sentence of this GBNF grammar."""
    sampling: Sampling = field(default_factory=Sampling)
    reuse: bool = True
    """Whether what is already computed of an equal beginning may be used again (the prefix cache)."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token: str
    logprob: float
    bytes: bytes
    id: int | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """A part that comes while the prompt is read, before the first token: `done` of `total` prompt tokens."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more text, of one token or several (a character may need more than one). Never empty of both."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    """OpenAI's deltas of tool calls, as the model's template has them."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last part. Tokens are counted by the model, not from pieces. Seconds are the model's own measure."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    prefill_s: float
    decode_s: float


Part = Progress | Piece | Finished
"""What `GenerationModel.stream` yields: any Progress, then Pieces, then exactly one Finished."""
