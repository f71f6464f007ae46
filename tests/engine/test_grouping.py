"""Which of the waiting items make the next batch."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from maru.engine.grouping import LOOK_AHEAD, full, take
from maru.engine.types import Limits


@dataclass(slots=True, eq=False)
class Waiting:
    order: int
    cost: float


def line(*costs: float) -> deque[Waiting]:
    return deque(Waiting(order, cost) for order, cost in enumerate(costs))


def orders(batch: list[Waiting] | deque[Waiting]) -> list[int]:
    return [item.order for item in batch]


COSTS = st.lists(st.sampled_from([0.0, 0.5, 1, 2, 3, 5, 8, 40, 41, 100, 512]), min_size=1, max_size=40)
LIMITS = st.builds(
    Limits,
    max_batch_size=st.integers(1, 9),
    max_batch_cost=st.sampled_from([math.inf, 1.0, 10.0, 100.0]),
    batch_spread=st.sampled_from([None, 1.0, 1.6, 4.0]),
    batch_fill_cost=st.sampled_from([0.0, 5.0, 50.0]),
)


def test_by_count() -> None:
    queue = line(*[1] * 10)
    assert orders(take(queue, Limits(max_batch_size=4))) == [0, 1, 2, 3]
    assert orders(queue) == [4, 5, 6, 7, 8, 9]


def test_by_cost_the_item_that_would_exceed_it_begins_the_next_batch() -> None:
    queue = line(4, 4, 4, 1)
    assert orders(take(queue, Limits(max_batch_cost=10))) == [0, 1]
    assert orders(take(queue, Limits(max_batch_cost=10))) == [2, 3]


def test_an_item_that_costs_more_than_a_batch_may_is_a_batch_of_its_own() -> None:
    for spread in (None, 1.6):
        queue = line(50, 1)
        assert orders(take(queue, Limits(max_batch_cost=10, batch_spread=spread))) == [0]


def test_items_alike_in_cost_go_together() -> None:
    queue = line(10, 200, 11, 190, 12, 9)
    limits = Limits(max_batch_size=4, batch_spread=1.6)
    assert sorted(orders(take(queue, limits))) == [0, 2, 4, 5]
    assert sorted(orders(take(queue, limits))) == [1, 3]


def test_unlike_items_fill_a_batch_that_would_be_too_small() -> None:
    queue = line(10, 200, 11)
    limits = Limits(max_batch_size=4, batch_spread=1.6, batch_fill_cost=100)
    assert sorted(orders(take(queue, limits))) == [0, 2]
    queue = line(10, 30, 11)
    assert sorted(orders(take(queue, limits))) == [0, 1, 2]


@settings(max_examples=600, derandomize=True, deadline=None, database=None)
@given(COSTS, LIMITS)
def test_a_batch_keeps_the_limits_and_nothing_is_lost_doubled_or_overtaken(costs: list[float], limits: Limits) -> None:
    queue = line(*costs)
    taken: list[int] = []
    while queue:
        head, before = queue[0], list(queue)
        batch = take(queue, limits)
        assert head in batch, "the head never waits for another batch"
        assert 1 <= len(batch) <= limits.max_batch_size
        total = sum(item.cost for item in batch)
        assert len(batch) == 1 or total <= limits.max_batch_cost
        if limits.batch_spread is not None and total >= limits.batch_fill_cost and min(i.cost for i in batch) > 0:
            dearest, cheapest = max(item.cost for item in batch), min(item.cost for item in batch)
            assert dearest / cheapest <= limits.batch_spread or len(batch) == 1
        assert list(queue) == [item for item in before if item not in batch], "the others keep their order"
        reach = before[: LOOK_AHEAD * limits.max_batch_size]
        assert all(item in reach for item in batch)
        taken += orders(batch)
    assert sorted(taken) == list(range(len(costs)))


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(COSTS, LIMITS, st.sampled_from([1.0, 100.0]))
def test_no_item_starves_however_many_come_that_fit_the_others_better(
    costs: list[float], limits: Limits, popular: float
) -> None:
    """Every batch is followed by as many newcomers as it took: each of the first items is out in its turn."""
    queue = line(*costs)
    first, next_order = set(orders(queue)), len(costs)
    for _ in range(len(costs)):
        for item in take(queue, limits):
            first.discard(item.order)
            queue.append(Waiting(next_order, popular))
            next_order += 1
    assert not first


def test_a_batch_is_full_by_count_or_by_the_cost_that_fills_it() -> None:
    limits = Limits(max_batch_size=4, max_batch_cost=100)
    assert not full(3, 99, limits)
    assert full(4, 4, limits)
    assert full(1, 100, limits)
    assert full(1, 40, Limits(max_batch_size=4, max_batch_cost=100, batch_fill_cost=40))
