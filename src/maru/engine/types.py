"""The typed objects that travel the road."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Clock = Callable[[], float]
CacheState = Literal["hit", "miss", "shared"]


class ModelRef(NamedTuple):
    """One version of one model. `digest` identifies the artifact's bytes, so equal digests compute alike."""

    name: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one model may run, wait and be batched at once. Counts are in items, not requests.

    `running` bounds the items handed to the batcher and the model, `waiting` those behind them. A batch
    holds at most `max_batch_size` items and `max_batch_cost` of cost, and is closed `max_queue_delay_s`
    after its first item at the latest; 0 means that batches form only while the workers are busy.
    `batch_spread` turns on sorting by cost: once a batch costs `batch_fill_cost` its most and least
    expensive items differ by at most that factor. `workers` batches are computed at once.
    """

    running: int = 32
    waiting: int = 128
    deadline_s: float = 30.0
    max_batch_size: int = 32
    max_batch_cost: float = math.inf
    max_queue_delay_s: float = 0.0
    batch_spread: float | None = None
    batch_fill_cost: float = 0.0
    workers: int = 1


@dataclass(slots=True)
class Timings:
    """Seconds spent in each stage by one request; `batch_size` is that of the largest batch it was in."""

    queue_s: float = 0.0
    batch_s: float = 0.0
    compute_s: float = 0.0
    total_s: float = 0.0
    batch_size: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """What a door asks of the engine: n inputs for one model, by one caller, until one deadline.

    `costs` are the door's estimates, one an input, in the model's unit of work (tokens, windows, …); they
    decide waiting times and fair shares. `keys` are the canonical bytes of each input with its options;
    without them nothing is cached. `partial` asks for failed items as exceptions among the outputs instead
    of failing the request. `deadline` is absolute, on the engine's monotonic clock.
    """

    model: str
    inputs: Sequence[Any]
    deadline: float
    tenant: str = ""
    weight: float = 1.0
    operation: str = "predict"
    costs: Sequence[float] | None = None
    keys: Sequence[bytes] | None = None
    partial: bool = False
    id: str = ""
    stage: Literal["waiting", "computing"] = "waiting"
    created: float = field(default_factory=time.monotonic)
    timings: Timings = field(default_factory=Timings)


@dataclass(slots=True)
class Result:
    """The outputs, in the order of the inputs, and the receipt: which version made them, how, and how fast."""

    outputs: list[Any]
    ref: ModelRef
    cache: CacheState
    timings: Timings
