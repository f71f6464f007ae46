"""The figures, beside ones computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.examples import Visit
from maru.services.recommend.training.outcomes import Outcomes, calibration


def visit(clicks: list[int] = [], carts: list[int] = [], orders: list[int] = []) -> Visit:  # noqa: B006
    later = {"clicks": clicks, "carts": carts, "orders": orders}
    seen = np.array([1], np.int64)
    return Visit(seen, seen, seen.astype(np.int8), {name: np.array(items, np.int64) for name, items in later.items()})


VISITS = [
    visit(clicks=[10], carts=[11, 12], orders=[12]),
    visit(clicks=[20]),
    visit(clicks=[30], carts=list(range(100, 130))),
    visit(),
]
LISTS = [
    [10, 12, 99],
    [99, 98, 97, 20],
    [*range(100, 119), 999, 30],  # the click is at place 21: too late
    [5],
]


def outcomes(lists: list[list[int]] = LISTS) -> Outcomes:
    return Outcomes.of(VISITS, [np.array(each, np.int64) for each in lists])


def test_by_hand():
    """Clicks: 2 of 3. Carts: 1 + 19 of 2 + 20, as no list can hold thirty. Orders: 1 of 1."""
    found = outcomes().metrics()
    assert found["recall@20_clicks"] == pytest.approx(2 / 3)
    assert found["recall@20_carts"] == pytest.approx(20 / 22)
    assert found["recall@20_orders"] == 1
    assert found["weighted"] == pytest.approx(0.1 * 2 / 3 + 0.3 * 20 / 22 + 0.6)
    assert found["mrr@20"] == pytest.approx((1 + 1 / 4 + 0) / 3)
    assert outcomes().counts == {"clicks": 3, "carts": 2, "orders": 1}


def test_the_weights_are_of_the_types_there_are():
    found = Outcomes.of(VISITS[1:2], [np.array([20])]).metrics()
    assert found == {"recall@20_clicks": 1, "weighted": 1, "mrr@20": 1}


def test_nothing_wanted_is_no_figure():
    assert Outcomes.of(VISITS[3:], [np.array([5])]).metrics() == {}


def test_parts_join():
    joined = Outcomes.join([Outcomes.of(VISITS[:1], [np.array(LISTS[0])]), Outcomes.of(VISITS[1:], LISTS[1:])])
    assert joined.metrics() == outcomes().metrics()


def hits(share: float, visits: int, seed: int) -> Outcomes:
    right = (np.random.default_rng(seed).random(visits) < share).astype(np.float64)
    wanted = np.zeros((visits, 3))
    wanted[:, 0] = 1
    return Outcomes(right[:, None] * wanted, wanted, right)


def test_intervals_are_those_of_a_share():
    """Of 2,000 visits, half hit: the 95% interval is 0.5 ± 1.96 sqrt(0.25 / 2000)."""
    figure = hits(0.5, 2000, 1).figures()["recall@20_clicks"]
    half = 1.96 * (0.25 / 2000) ** 0.5
    assert figure.high - figure.value == pytest.approx(half, rel=0.15)
    assert figure.value - figure.low == pytest.approx(half, rel=0.15)


def test_differences_are_taken_visit_by_visit():
    """A way that is right wherever the other is, and five times more, is better for sure, though the shares'
    own intervals overlap."""
    other = hits(0.5, 2000, 1)
    right = other.hits.copy()
    right[np.flatnonzero(right[:, 0] == 0)[:20], 0] = 1
    better = Outcomes(right, other.possible, other.reciprocal)
    assert better.figures()["recall@20_clicks"].low < other.figures()["recall@20_clicks"].high
    difference = better.beyond(other)["recall@20_clicks"]
    assert difference.value == pytest.approx(0.01) and 0 < difference.low < difference.high < 0.02
    nothing = other.beyond(other)["recall@20_clicks"]
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_the_same_every_time():
    assert hits(0.3, 100, 1).figures() == hits(0.3, 100, 1).figures()


def test_calibration_by_tenths():
    chance = np.random.default_rng(0)
    predicted = chance.random(50_000)
    actual = chance.random(50_000) < predicted
    tenths = calibration(predicted, actual)
    assert [tenth["candidates"] for tenth in tenths] == [5000] * 10
    for number, tenth in enumerate(tenths):
        assert tenth["predicted"] == pytest.approx(0.1 * number + 0.05, abs=0.005)
        assert tenth["actual"] == pytest.approx(tenth["predicted"], abs=0.02)
    overconfident = calibration(predicted, chance.random(50_000) < predicted / 2)
    assert all(tenth["actual"] < 0.6 * tenth["predicted"] for tenth in overconfident[1:])
