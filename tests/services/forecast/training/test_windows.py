"""Windows: what is in one, which is forecast from it, and who gets to see it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.errors import TooFewCandles
from maru.services.forecast.training.features import FEATURE_SETS
from maru.services.forecast.training.windows import Windows, walk_forward

CHOSEN = FEATURE_SETS["btc18"]


def test_a_window_ends_at_the_last_close_and_the_next_is_forecast(candles):
    windows = Windows.cut(candles, CHOSEN, 12)
    assert windows.inputs.shape == (1000 - 150 - 12, 12, 18) and windows.inputs.dtype == np.float32
    for place in (0, 1, 400, len(windows) - 1):
        bar = int(np.flatnonzero(candles.time == windows.time[place])[0])
        closes = candles.close[bar - 11 : bar + 1].astype(np.float32)
        assert (windows.inputs[place, :, CHOSEN.close_index] == closes).all()
        assert windows.last[place] == closes[-1] and windows.next[place] == np.float32(candles.close[bar + 1])
    assert windows.time[0] == candles.time[150 + 11] and windows.time[-1] == candles.time[-2]


def test_no_window_spans_a_gap(candles):
    keep = np.ones(1000, bool)
    keep[[400, 701, 702]] = False
    columns = (candles.time, candles.open, candles.high, candles.low, candles.close, candles.volume)
    windows = Windows.cut(Candles(*(column[keep] for column in columns)), CHOSEN, 12)
    whole = Windows.cut(candles, CHOSEN, 12)
    assert len(windows) == (400 - 162) + (300 - 162) + (297 - 162)
    for place in range(len(windows)):
        same = int(np.flatnonzero(whole.time == windows.time[place])[0])
        np.testing.assert_array_equal(windows.inputs[place, :, :5], whole.inputs[same, :, :5])
        assert windows.next[place] == whole.next[same]


def test_too_few_windows(candles):
    with pytest.raises(TooFewCandles, match="give 288 windows of 12 bars without a gap, 150 bars behind"):
        Windows.cut(candles[:450], CHOSEN, 12)
    with pytest.raises(TooFewCandles, match="give 0 windows"):
        Windows.cut(candles, CHOSEN, 2000)


@given(st.integers(300, 100_000))
def test_folds_are_in_the_order_of_time(windows):
    folds = list(walk_forward(windows))
    for fold in folds:
        assert 0 == fold.train.start < fold.train.stop == fold.validation.start < fold.validation.stop
        assert fold.validation.stop == fold.test.start < fold.test.stop
        assert fold.train.stop >= windows // 4
    for earlier, later in pairwise(folds):
        assert earlier.test.stop == later.test.start and earlier.train.stop < later.train.stop
    assert folds[-1].test.stop == windows
    assert abs((folds[-1].test.stop - folds[-1].test.start) / windows - 0.2) < 0.01


def test_one_bar_is_a_window_too(market: Callable[..., list[list[float]]]):
    time, *figures = np.array(market(600)).T
    assert Windows.cut(Candles(time.astype(np.int64), *figures), CHOSEN, 1).inputs.shape == (449, 1, 18)
