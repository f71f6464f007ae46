"""Which of the waiting items make the next batch."""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeVar

from maru.engine.types import Limits


class Costed(Protocol):
    cost: float
    order: int


T = TypeVar("T", bound=Costed)

LOOK_AHEAD = 4
"""How many batches deep the queue is searched for items alike in cost."""


def full(count: int, cost: float, limits: Limits) -> bool:
    """Whether waiting longer could not make a better batch than the items queued, of that cost, already do."""
    most = min(limits.max_batch_size, limits.running)
    return count >= most or cost >= (limits.batch_fill_cost or limits.max_batch_cost)


def take(queue: deque[T], limits: Limits, most: int | None = None) -> list[T]:
    """Remove and return the next batch: the head of the queue and what goes well with it, `most` items at the most.

    Oldest first; or, with `batch_spread`, the items nearest to the head's cost, so that little is padded. The
    head is always in it, so no item starves.
    """
    most = most or limits.max_batch_size
    if limits.batch_spread is None or len(queue) == 1:
        batch = [queue.popleft()]
        total = batch[0].cost
        while queue and len(batch) < most and total + queue[0].cost <= limits.max_batch_cost:
            total += queue[0].cost
            batch.append(queue.popleft())
        return batch
    return _nearest(queue, limits, most, limits.batch_spread)


def _nearest(queue: deque[T], limits: Limits, most: int, spread: float) -> list[T]:
    seen = [queue.popleft() for _ in range(min(len(queue), LOOK_AHEAD * limits.max_batch_size))]
    head = seen[0]
    seen.sort(key=lambda item: item.cost)
    low = high = next(i for i, item in enumerate(seen) if item is head)
    total = head.cost
    while high - low + 1 < most:
        cheaper = seen[high].cost / max(seen[low - 1].cost, 1e-9) if low else float("inf")
        dearer = seen[high + 1].cost / max(seen[low].cost, 1e-9) if high + 1 < len(seen) else float("inf")
        downward = cheaper <= dearer
        ratio = min(cheaper, dearer)
        if ratio == float("inf"):
            break
        total += seen[low - 1 if downward else high + 1].cost
        if total > limits.max_batch_cost or (ratio > spread and total >= limits.batch_fill_cost):
            break
        if downward:
            low -= 1
        else:
            high += 1
    rest = seen[:low] + seen[high + 1 :]
    rest.sort(key=lambda item: item.order)
    queue.extendleft(reversed(rest))
    return seen[low : high + 1]
