"""What is sent to OpenAI's doors: what both take, and completions. Fields that say nothing of the answer are taken and
do nothing."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from maru.runtimes.generation.types import Prompt, Sampling
from maru.services.llm.schemas import (
    MAX_CHARACTERS,
    MaxTokens,
    MinP,
    ModelId,
    Penalty,
    RepeatPenalty,
    Seed,
    Stop,
    Stops,
    Strict,
    Temperature,
    TopK,
    TopP,
    seeded,
)

MAX_CHOICES = 16
MAX_LOGPROBS = 20

PromptText = Annotated[StrictStr, Field(min_length=1, max_length=MAX_CHARACTERS)]
TokenId = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=131_072)]
Choices = Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)]
Label = Annotated[StrictStr, Field(max_length=512)]
BiasedToken = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Bias = Annotated[dict[BiasedToken, Annotated[float, Field(strict=True, ge=-100, le=100)]], Field(max_length=300)]


class StreamOptions(Strict):
    include_usage: StrictBool = False
    include_obfuscation: StrictBool = False


class Sampled(Strict):
    """What both doors know of sampling. Beyond OpenAI's: `top_k`, `min_p`, `repeat_penalty`, `ignore_eos`, and
    `cache_prompt`, as llama.cpp has it: whether what is computed of an equal beginning may be used again."""

    model: ModelId
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    n: Choices | None = None
    seed: Seed | None = None
    stop: Stop | Stops | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    ignore_eos: StrictBool = False
    cache_prompt: StrictBool = True
    user: Label | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def usage(self) -> bool:
        """Whether a stream is to end with what it took."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, choice: int, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """For the choice-th answer. A temperature that is not given is 1, as OpenAI's is."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias={int(token): bias for token, bias in self.logit_bias.items()} if self.logit_bias else None,
            seed=seeded(self.seed, choice),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            ignore_eos=self.ignore_eos,
            logprobs=logprobs,
        )


class CompletionRequest(Sampled):
    """OpenAI's completions: one text, several, or the token ids of one or several."""

    prompt: (
        PromptText
        | Annotated[list[PromptText], Field(min_length=1, max_length=MAX_CHOICES)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_CHOICES)]
    )
    max_tokens: MaxTokens | None = 16
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: StrictBool | None = None
    best_of: Choices | None = None
    suffix: None = None

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        if len(self.given) * self.choices > MAX_CHOICES:
            raise ValueError(f"a request has at most {MAX_CHOICES} answers: prompts times n")
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError("best_of must equal n")
        if self.echo and (self.logprobs is not None or not all(isinstance(one, str) for one in self.given)):
            raise ValueError("echo is for prompts that are text, without logprobs")
        return self

    @property
    def given(self) -> list[str | list[int]]:
        """The prompts, one by one."""
        given: Any = self.prompt
        if isinstance(given, str):
            return [given]
        return [given] if isinstance(given[0], int) else list(given)

    def prompts(self) -> list[Prompt]:
        """One for each answer: all of the first prompt, then those of the next."""
        return [
            Prompt(
                reuse=self.cache_prompt,
                text=one if isinstance(one, str) else None,
                tokens=None if isinstance(one, str) else one,
                sampling=self.sampling(choice, self.max_tokens, self.logprobs),
            )
            for one in self.given
            for choice in range(self.choices)
        ]
