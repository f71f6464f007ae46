"""One batch through one model, whatever the model does with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maru.engine.errors import EngineError, ModelFailed, OutOfMemory
from maru.engine.model import Model
from maru.engine.pending import Item
from maru.engine.types import Clock

LEAVING = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)
"""What ends whoever waits. Any other BaseException is the model's: a panic in native code is no Exception, nor is
what a library that gives up with `sys.exit` raises."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What a worker brings back: outputs by the items' order, without those of callers gone before it began."""

    started: float
    ended: float
    outputs: dict[int, Any]


def compute(model: Model, batch: Sequence[Item], clock: Clock) -> Computed:
    """In a worker's thread, or on the loop for a model that is quick enough."""
    started = clock()
    outputs: dict[int, Any] = {}
    live = [item for item in batch if not item.job.gone]
    groups: list[Sequence[Item]] = [live] if live else []
    while groups:
        group = groups.pop()
        try:
            answers = checked(group, model.predict([item.value for item in group]))
        except BaseException as error:
            groups.extend(_split(group, error, outputs))
        else:
            outputs.update(zip((item.order for item in group), answers, strict=True))
    return Computed(started, clock(), outputs)


async def compute_here(model: Model, batch: Sequence[Item], clock: Clock) -> Computed:
    """On the event loop, for a model whose `predict` is a coroutine function."""
    started = clock()
    outputs: dict[int, Any] = {}
    groups = [batch]
    while groups:
        group = groups.pop()
        try:
            answers = checked(group, await model.predict([item.value for item in group]))  # type: ignore[misc]
        except asyncio.CancelledError:
            break
        except LEAVING:
            raise
        except BaseException as error:
            groups.extend(_split(group, error, outputs))
        else:
            outputs.update(zip((item.order for item in group), answers, strict=True))
    return Computed(started, clock(), outputs)


def checked(group: Sequence[Any], answers: Sequence[Any]) -> Sequence[Any]:
    """The answers, if there is one for each of the group."""
    if len(answers) != len(group):
        raise ModelFailed(f"the model gave {len(answers)} answers to {len(group)} inputs")
    return answers


def _split(group: Sequence[Item], error: BaseException, outputs: dict[int, Any]) -> list[Sequence[Item]]:
    """A batch that failed is halved until the item that made it fail stands alone."""
    if len(group) > 1:
        middle = len(group) // 2
        return [group[:middle], group[middle:]]
    outputs[group[0].order] = typed(error)
    return []


def typed(error: BaseException) -> EngineError:
    """What a model raised, as one of the engine's errors."""
    if isinstance(error, EngineError):
        return error
    failure = OutOfMemory("out of memory") if isinstance(error, MemoryError) else ModelFailed("the model failed")
    failure.__cause__ = error
    return failure
