"""The figures, beside ones computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maru.services.forecast.training.evaluation import Evaluation, diebold_mariano, directions, two_sided

LAST = [100.0, 102.0, 101.0, 105.0]
NEXT = [102.0, 101.0, 105.0, 105.0]
FORECAST = [101.0, 103.0, 104.0, 104.0]


def test_by_hand():
    """Errors 1, 2, 1, 1 beside persistence's 2, 1, 4, 0."""
    found = Evaluation.of(FORECAST, NEXT, LAST)
    assert found.windows == 4
    assert found.mae == pytest.approx(1.25) and found.persistence_mae == pytest.approx(1.75)
    assert found.mase == pytest.approx(1.25 / 1.75)
    assert found.rmse == pytest.approx(math.sqrt(7 / 4))
    assert found.rmse_skill == pytest.approx(1 - math.sqrt(7 / 21))


def test_directions_by_hand():
    """Up-up, up-down, up-up, and one that did not move and is not judged: 2 of 3. Wilson's interval."""
    found = Evaluation.of(FORECAST, NEXT, LAST).directions
    assert found is not None and found.moves == 3 and found.accuracy == pytest.approx(2 / 3)
    z, n, p = 1.959964, 3, 2 / 3
    middle, half = (p + z**2 / 6) / (1 + z**2 / 3), z / (1 + z**2 / 3) * math.sqrt(p * (1 - p) / n + z**2 / 36)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_wilsons_published_example():
    """Newcombe (1998), table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611."""
    right = np.where(np.arange(263) < 81, 1.0, -1.0)
    found = directions(right, np.ones(263))
    assert found is not None and (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    none = directions(-np.ones(20), np.ones(20))
    assert none is not None and (none.low, none.high) == pytest.approx((0, 0.1611), abs=5e-5)


def test_diebold_mariano_by_hand():
    """Differences -1, 1, -3, 1, -2: mean -0.8, centred -0.2, 1.8, -2.2, 1.8, -1.2.

    Autocovariances: 12.8/5 = 2.56 at 0; (-0.36 - 3.96 - 3.96 - 2.16)/5 = -2.088 at 1.
    """
    losses, others = np.array([1.0, 2, 1, 1, 0]), np.array([2.0, 1, 4, 0, 2])
    plain = diebold_mariano(losses, others, lags=0)
    assert plain is not None and plain.statistic == pytest.approx(-0.8 / math.sqrt(2.56 / 5) * math.sqrt(4 / 5))
    weighted = diebold_mariano(losses, others, lags=1)
    variance = 2.56 + 2 * 0.5 * -2.088
    assert weighted is not None
    assert weighted.statistic == pytest.approx(-0.8 / math.sqrt(variance / 5) * math.sqrt(4 / 5))


def test_without_lags_it_is_students_t():
    """Then the corrected statistic is the paired t: mean over s/√n, s with n - 1."""
    chance = np.random.default_rng(0)
    losses, others = chance.gamma(2, 1, 200), chance.gamma(2, 1, 200)
    difference = losses - others
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(200))
    found = diebold_mariano(losses, others, lags=0)
    assert found is not None and found.statistic == pytest.approx(t)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(2.776, 4, 0.05), (3.182, 3, 0.05), (2.228, 10, 0.05), (2.042, 30, 0.05), (2.75, 30, 0.01), (1.984, 100, 0.05)],
)
def test_students_p_beside_the_tables(t, freedom, p):
    assert two_sided(t, freedom) == pytest.approx(p, abs=0.002)
    assert two_sided(-t, freedom) == two_sided(t, freedom)


@pytest.fixture(scope="module")
def found_better() -> dict[tuple[float, int | None], int]:
    """How often of 400 a forecast is found better, by how much it is and by the lags, its errors hanging together."""
    chance = np.random.default_rng(1)
    found: dict[tuple[float, int | None], int] = {}
    for gain in (0.0, 0.15):
        for _ in range(400):
            noise = np.convolve(chance.normal(0, 1, 1002), np.ones(3) / 3, "valid")
            for lags in (None, 0):
                test = diebold_mariano(1 + noise - gain, np.ones(1000), lags)
                better = test is not None and test.p_value < 0.05 and test.statistic < 0
                found[gain, lags] = found.get((gain, lags), 0) + better
    return found


def test_it_finds_a_difference_where_there_is_one(found_better):
    assert found_better[0.15, None] > 350


def test_it_seldom_finds_one_where_there_is_none(found_better):
    """Nominally 10 of 400 on this side; taking the errors for independent would find three times as many."""
    assert found_better[0.0, None] < 24
    assert found_better[0.0, 0] > 1.5 * found_better[0.0, None]


def test_persistence_itself_is_neither_better_nor_worse():
    found = Evaluation.of(LAST, NEXT, LAST)
    assert found.mase == 1 and found.rmse_skill == 0
    assert found.directions is None and found.diebold_mariano is None
    assert "dm_p_value" not in found.metrics() and all(map(math.isfinite, found.metrics().values()))


def test_a_price_that_never_moves_can_not_be_judged():
    with pytest.raises(ValueError, match="never moves"):
        Evaluation.of([1, 2], [1, 1], [1, 1])
