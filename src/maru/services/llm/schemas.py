"""What is sent to the generation service and what comes back (document 004)."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr

from maru.runtimes.generation.types import FinishReason, Prompt, Sampling

MAX_CHARACTERS = 400_000
MAX_TOKENS = 131_072
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256

T = TypeVar("T")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the prompt is empty")
    return text


class Strict(BaseModel):
    """A request: a field that it does not have is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


Text = Annotated[
    StrictStr,
    Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": r"\S"}),
    AfterValidator(_not_blank),
]
ModelId = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Stop = Annotated[StrictStr, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
MaxTokens = Annotated[StrictInt, Field(ge=1, le=MAX_TOKENS)]
Seed = Annotated[StrictInt, Field(ge=-(2**53) + 1, le=2**53 - 1)]
Temperature = Annotated[float, Field(strict=True, ge=0, le=2)]
TopP = Annotated[float, Field(strict=True, ge=0, le=1)]
MinP = Annotated[float, Field(strict=True, ge=0, le=1)]
Penalty = Annotated[float, Field(strict=True, ge=-2, le=2)]
RepeatPenalty = Annotated[float, Field(strict=True, ge=0.01, le=10)]
TopK = Annotated[StrictInt, Field(ge=0, le=1000)]


def seeded(seed: int | None, choice: int = 0) -> int | None:
    """The seed of the choice-th answer, as the runtimes take it: 32 bits, of which the last means a random one."""
    return None if seed is None else (seed + choice) % (2**32 - 1)


class GenerateRequest(Strict):
    """What to go on from, and how. The defaults are the document's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "Explain quantum computing in simple terms:",
                    "model_id": "llama-3.1-8b-q4",
                    "max_tokens": 512,
                    "temperature": 0.7,
                    "top_p": 0.9,
                }
            ]
        }
    )

    prompt: Text
    model_id: ModelId
    max_tokens: MaxTokens = 512
    temperature: Temperature = 0.7
    top_p: TopP = 0.9
    stop: Stops = Field(default_factory=list, description="The text ends before the first of these.")
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = Field(None, description="The same seed gives the same text.")

    def asked(self) -> Prompt:
        """The request as a model takes it."""
        return Prompt(
            text=self.prompt,
            sampling=Sampling(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                min_p=self.min_p,
                repeat_penalty=self.repeat_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                seed=seeded(self.seed),
                stop=tuple(self.stop),
            ),
        )


class Success(BaseModel, Generic[T]):
    success: Literal[True] = True
    data: T


class Counts(BaseModel):
    """What an answer took. Seconds; `tokens_per_second` counts from the request to the answer's end, and `queue_time`
    of that was spent waiting for the model."""

    model_config = ConfigDict(protected_namespaces=())

    tokens_generated: int
    time_elapsed: float
    tokens_per_second: float
    model_id: str
    prompt_tokens: int
    cached_tokens: int
    finish_reason: FinishReason
    time_to_first_token: float
    queue_time: float


class Generated(Counts):
    text: str


class ModelInfo(BaseModel):
    """A model of the server. `error` says why an `invalid` one can't be used. `memory_bytes` is measured, and null
    while the model is not in memory; `expected_memory_bytes` is what it will take, computed from its files."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    type: Literal["gguf", "safetensors"]
    context_length: int | None
    loaded: bool
    state: Literal["available", "loading", "loaded", "invalid"]
    size_bytes: int
    expected_memory_bytes: int | None = None
    memory_bytes: int | None = None
    pinned: bool = False
    error: str | None = None
    details: dict[str, Any] = {}


class ModelStatus(ModelInfo):
    """`version` is that of its answers, and the counts are of its answers under way and of those that wait."""

    version: str | None = None
    running: int = 0
    waiting: int = 0


class ErrorBody(BaseModel):
    code: str
    message: str
    suggestion: str
    details: dict[str, Any] = {}


class Problem(BaseModel):
    """Every error of this service."""

    success: Literal[False] = False
    error: ErrorBody
