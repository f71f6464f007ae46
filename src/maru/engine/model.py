"""What a model must do to be served, and how one is declared."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from maru.engine.types import Limits, ModelRef


@dataclass(slots=True)
class Prepared:
    """One input made ready for a batch: `value` is what `predict` is given, `cost` its share of a batch."""

    value: Any
    cost: float = 1.0


class Model:
    """One loaded model. A subclass overrides `predict`, `stream`, or both.

    `predict` runs in a worker thread (or, when it is a coroutine function, on the loop); `prepare` runs
    before an input joins a batch. Neither sees HTTP, SQL or JSON.
    """

    memory_bytes: int = 0
    """What the loaded model holds in memory, measured or computed, in bytes."""

    metadata: Mapping[str, Any] = {}
    """What doors may show: input and output tensors, dimension, context length, labels."""

    inline: bool = False
    """Whether `predict` takes well under a millisecond, and is run on the event loop without a thread's delay."""

    def quick(self, inputs: Sequence[Any]) -> bool:
        """Whether `prepare(inputs)` surely takes under a millisecond and may run on the event loop."""
        return True

    def prepare(self, inputs: Sequence[Any]) -> Sequence[Prepared | Exception]:
        """Ready each input for a batch; an exception in an input's place fails that input alone."""
        return [Prepared(value) for value in inputs]

    def predict(self, batch: Sequence[Any]) -> Sequence[Any]:
        """One output an input, in order. An exception in an output's place fails that item alone."""
        raise TypeError(f"{type(self).__name__} does not predict")

    def stream(self, value: Any) -> AsyncIterator[Any]:
        """The parts of the answer to one prepared input, as they are made. Closing the iterator stops the work."""
        raise TypeError(f"{type(self).__name__} does not stream")

    def alive(self) -> bool:
        """Whether it can still answer. One that can't, since its process has ended, is loaded again by who asks next.
        Called on the event loop for every request."""
        return True

    def warm(self) -> None:
        """Run once after loading, in a worker thread, before the model is given a request."""

    def close(self) -> None:
        """Free what the model holds. Called once, when nothing uses it any more."""


class Codec(Protocol):
    """Turns an output into bytes and back, so that it can be cached. `decode` raises ValueError on other bytes."""

    def encode(self, output: Any) -> bytes: ...

    def decode(self, data: bytes) -> Any: ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How one version of a model is loaded and served.

    `load` builds the model in a worker thread. `memory_bytes` is what loading is expected to take, 0 when
    unknown. A `pinned` model is never evicted. `on_demand` lets a request load it; otherwise a request
    for a model that is not in memory is refused until it is. Without a `codec` its outputs are not cached.
    `group` names the budget that it counts against.
    """

    ref: ModelRef
    load: Callable[[], Model]
    limits: Limits = field(default_factory=Limits)
    codec: Codec | None = None
    memory_bytes: int = 0
    pinned: bool = False
    on_demand: bool = False
    group: str = ""
