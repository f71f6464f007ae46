"""What is sent to the benchmark endpoints and what comes back (document 004), within bounds that one server bears."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from maru.runtimes.generation.types import Prompt, Sampling
from maru.services.llm.benchmarks.plan import Level, Objectives, Plan
from maru.services.llm.schemas import ModelId, Strict

MAX_PROMPTS = 20
MAX_CHARACTERS = 4096
MAX_TOKENS = 512
MAX_WARMUPS = 5
MAX_CONCURRENCY = 64
MAX_LEVELS = 8
MAX_REQUESTS = 2000
MAX_OUTPUT = 262_144
"""Tokens of all answers of a run together."""

DEADLINE_S = 600.0
MAX_QUEUED = 5

DEFAULT_PROMPTS = ("Write a short story about AI:", "Explain machine learning:")


def _storable(text: str) -> str:
    """Text that every database holds."""
    if "\0" in text or not text.strip():
        raise ValueError("the prompt is empty, or holds a NUL")
    return text


PromptText = Annotated[StrictStr, Field(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(_storable)]
Prompts = Annotated[list[PromptText], Field(min_length=1, max_length=MAX_PROMPTS)]
Concurrency = Annotated[StrictInt, Field(ge=1, le=MAX_CONCURRENCY)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=DEADLINE_S)]
Rate = Annotated[float, Field(strict=True, gt=0, le=1000)]


class Goals(Strict):
    """What makes an answer a good one, for goodput."""

    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    e2e_s: Seconds | None = None


class BenchmarkConfig(Strict):
    """How a model is measured. Each level has `num_iterations` requests for each prompt, and no fewer than clients."""

    test_prompts: Prompts = Field(default_factory=lambda: list(DEFAULT_PROMPTS))
    num_iterations: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    warmup_iterations: Annotated[StrictInt, Field(ge=0, le=MAX_WARMUPS)] = 3
    warmup_prompt: PromptText = "Hello, world!"
    concurrency: Concurrency | Annotated[list[Concurrency], Field(min_length=1, max_length=MAX_LEVELS)] = Field(
        1, description="Clients at once; of a list each is a level of its own."
    )
    rate: Rate | Annotated[list[Rate], Field(min_length=1, max_length=MAX_LEVELS)] | None = Field(
        None, description="Requests a second, at random intervals, in the place of `concurrency`."
    )
    arrivals: Literal["poisson", "constant"] = "poisson"
    sweep: Annotated[StrictInt, Field(ge=0, le=MAX_LEVELS - 2)] = Field(
        0, description="So many rates between what one client and what `concurrency` clients come to, after those two."
    )
    repetitions: Annotated[StrictInt, Field(ge=1, le=5)] = 1
    max_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_TOKENS)] = 128
    fixed_length: StrictBool = Field(False, description="Every answer has `max_tokens`, whatever the model would do.")
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] = 0.0
    seed: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] = 0
    reuse_cache: StrictBool = Field(
        False, description="Let the model use what it has computed of an equal beginning. Cached tokens are counted."
    )
    objectives: Goals = Goals()

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        levels = self.levels()
        if self.sweep and len(levels) > 1:
            raise PydanticCustomError("sweep", "a sweep has one concurrency and no rate")
        times = self.repetitions * (self.sweep + 2 if self.sweep else 1)
        requests = times * sum(level.requests for level in levels)
        if requests > MAX_REQUESTS:
            raise PydanticCustomError("requests", f"{requests} requests are more than {MAX_REQUESTS} of a run")
        if requests * self.max_tokens > MAX_OUTPUT:
            asked = requests * self.max_tokens
            raise PydanticCustomError("tokens", f"up to {asked} tokens are more than {MAX_OUTPUT} of a run")
        return self

    def levels(self) -> tuple[Level, ...]:
        asked = self.num_iterations * len(self.test_prompts)
        if self.rate is not None and not self.sweep:
            rates = self.rate if isinstance(self.rate, list) else [self.rate]
            return tuple(Level(asked, MAX_CONCURRENCY, rate, self.arrivals) for rate in rates)
        clients = self.concurrency if isinstance(self.concurrency, list) else [self.concurrency]
        return tuple(Level(max(asked, each), each, arrivals=self.arrivals) for each in clients)

    def plan(self) -> Plan:
        """The run that this asks for."""
        sampling = Sampling(
            max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed, ignore_eos=self.fixed_length
        )
        goals = self.objectives
        return Plan(
            prompts=tuple(Prompt(text=text, sampling=sampling, reuse=self.reuse_cache) for text in self.test_prompts),
            levels=self.levels(),
            warmup=Prompt(text=self.warmup_prompt, sampling=sampling, reuse=False),
            warmups=self.warmup_iterations,
            sweep=self.sweep,
            repetitions=self.repetitions,
            objectives=Objectives(goals.ttft_s, goals.tpot_s, goals.e2e_s),
            seed=self.seed,
            deadline_s=DEADLINE_S,
        )


class BenchmarkRunRequest(Strict):
    """A benchmark of one model. `test_prompts` may stand beside `config` as well as in it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_id": "llama-3.1-8b-q4",
                    "config": {
                        "test_prompts": ["Write a short story about AI:", "Explain machine learning:"],
                        "warmup_iterations": 3,
                        "warmup_prompt": "Hello, world!",
                    },
                }
            ]
        }
    )

    model_id: ModelId
    config: BenchmarkConfig = BenchmarkConfig()
    test_prompts: Prompts | None = None

    def configured(self) -> BenchmarkConfig:
        """The configuration with the prompts that were given beside it, within the same bounds."""
        if self.test_prompts is None:
            return self.config
        return BenchmarkConfig.model_validate({**self.config.model_dump(), "test_prompts": self.test_prompts})

    @model_validator(mode="after")
    def _with_these_prompts(self) -> Self:
        self.configured()
        return self


RunStatus = Literal["started", "running", "completed", "failed", "cancelled"]


class Taken(BaseModel):
    benchmark_id: str
    status: RunStatus


class BenchmarkStatus(BaseModel):
    """A run: `started` while it waits for its turn, then `running`, then how it ended and, if it failed, why.

    `progress` is how far it is.
    """

    model_config = ConfigDict(protected_namespaces=())

    benchmark_id: str
    model_id: str
    status: RunStatus
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    error: str | None = None
    progress: dict[str, Any] | None = None


class BenchmarkResult(BenchmarkStatus):
    """What was measured: tokens a second and seconds. `detailed_results` has each request, `levels` the figures.

    `memory_source` is `gpu`, or `host` where there is none and the machine's memory stands in its place.
    """

    avg_tokens_per_second: float | None = None
    avg_time_to_first_token: float | None = None
    memory_peak_mb: float | None = None
    memory_source: Literal["gpu", "host"] | None = None
    detailed_results: list[dict[str, Any]] = []
    levels: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    objectives: dict[str, Any] | None = None
    warmup: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    samples: dict[str, Any] | None = None
    definitions: dict[str, str] = {}


class MachineSample(BaseModel):
    """The machine at one moment: of the first GPU, and of all. Bytes, percent, °C and watts.

    Without a GPU `source` is `host`, its figures are null, and those of the machine stand in their place.
    """

    timestamp: str
    source: Literal["gpu", "host"]
    temperature: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: float | None = None
    power_usage: float | None = None
    gpus: list[dict[str, Any]] = []
    cpu_percent: float | None = None
    host_memory_used: int | None = None
    host_memory_total: int | None = None


class MetricsHistory(BaseModel):
    """Samples of a run, or its minutes. `truncated` when there are more after these; ask again with `start`."""

    benchmark_id: str
    source: Literal["gpu", "host"] | None
    resolution: Literal["raw", "1m"]
    samples: list[dict[str, Any]]
    truncated: bool = False
