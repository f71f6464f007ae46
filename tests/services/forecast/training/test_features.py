"""The features, beside TA-Lib and beside their definitions; and that none of them knows the future."""

from __future__ import annotations

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.features import FEATURE_SETS, atr, btc18, rsi

CHOSEN = FEATURE_SETS["btc18"]
SETTLED = CHOSEN.warmup


@pytest.fixture(scope="session")
def table(candles: Candles) -> dict[str, np.ndarray]:
    return dict(zip(CHOSEN.names, btc18(candles).T, strict=True))


def test_the_names_are_the_contract(candles):
    assert len(CHOSEN.names) == len(set(CHOSEN.names)) == 18
    assert CHOSEN.names[:5] == ("open", "high", "low", "close", "volume")
    assert CHOSEN.names[CHOSEN.close_index] == "close"
    assert [CHOSEN.names[place] for place in (*CHOSEN.prices, *CHOSEN.volumes)] == [*CHOSEN.names[:5]]
    assert (btc18(candles)[:, CHOSEN.close_index] == candles.close).all()


def test_like_ta_lib(candles, table):
    c = candles
    np.testing.assert_allclose(rsi(c.close, 14), talib.RSI(c.close, 14), rtol=1e-10)
    np.testing.assert_allclose(table["rsi_14"], talib.RSI(c.close, 14), rtol=1e-10)
    np.testing.assert_allclose(atr(c, 14), talib.ATR(c.high, c.low, c.close, 14), rtol=1e-10)
    np.testing.assert_allclose(table["atr_14_rel"], talib.NATR(c.high, c.low, c.close, 14) / 100, rtol=1e-10)
    upper, _, lower = talib.BBANDS(c.close, 20, 2, 2)
    np.testing.assert_allclose(table["bb_pctb_20"], (c.close - lower) / (upper - lower), rtol=1e-5)
    for bars in (1, 3, 12, 24):
        returns = np.log1p(talib.ROCP(c.close, bars))
        np.testing.assert_allclose(table[f"ret_{bars}"], returns, rtol=1e-9, atol=1e-12)


def test_like_ta_lib_once_the_averages_have_settled(candles, table):
    """TA-Lib begins the MACD's two averages at one bar, we each at its own: after the warm-up it does not show."""
    wanted = talib.MACD(candles.close, 12, 26, 9)[2] / candles.close
    np.testing.assert_allclose(table["macd_hist_rel"][SETTLED:], wanted[SETTLED:], atol=1e-7)
    assert np.abs(wanted[SETTLED:]).mean() > 1e-4


def test_like_their_definitions(candles, table):
    c, level = candles, np.log(candles.close)
    for bar in (SETTLED, 500, 999):
        for bars in (12, 24):
            wanted = np.diff(level[bar - bars : bar + 1]).std(ddof=1)
            assert table[f"vol_{bars}"][bar] == pytest.approx(wanted, rel=1e-9)
        day = np.log1p(c.volume[bar - 23 : bar + 1])
        assert table["vol_z_24"][bar] == pytest.approx((day[-1] - day.mean()) / day.std(ddof=1), rel=1e-9)
        assert table["hl_range"][bar] == pytest.approx(np.log(c.high[bar] / c.low[bar]))
        assert table["body"][bar] == pytest.approx(np.log(c.close[bar] / c.open[bar]))


def test_whole_behind_the_warmup(candles):
    assert np.isfinite(btc18(candles)[SETTLED:]).all()
    assert np.isnan(btc18(candles)[0]).any()


@settings(max_examples=40, deadline=None)
@given(bar=st.integers(1, 999), scale=st.floats(0.01, 100), seed=st.integers(0, 2**32 - 1))
def test_no_feature_knows_the_future(candles, bar, scale, seed):
    """Whatever follows a bar, and if nothing does, its features are the same."""
    now = btc18(candles)[:bar]
    np.testing.assert_allclose(btc18(candles[:bar]), now, rtol=1e-12, atol=1e-12)
    noise = np.random.default_rng(seed).uniform(scale, 2 * scale, len(candles) - bar)
    figures = []
    for column in (candles.open, candles.high, candles.low, candles.close, candles.volume):
        figures.append(np.concatenate((column[:bar], column[bar:] * noise)))
    np.testing.assert_allclose(btc18(Candles(candles.time, *figures))[:bar], now, rtol=1e-12, atol=1e-12)


def test_where_the_history_begins_is_forgotten(candles):
    """A caller who holds only the last bars computes what the model was trained on."""
    short = btc18(candles[500:])[SETTLED:]
    whole = btc18(candles)[500 + SETTLED :]
    spread = whole.std(axis=0)
    assert (np.abs(short - whole) / spread).max() < 1e-3


@pytest.mark.parametrize("level", [1e-9, 0.1, 40_000.0])
def test_a_market_that_stands_still(level):
    still = np.full(200, level)
    table = btc18(Candles(np.arange(200) * 60, still, still, still, still, np.zeros(200)))[SETTLED:]
    values = dict(zip(CHOSEN.names, table.T, strict=True))
    assert np.isfinite(table).all()
    assert (values["rsi_14"] == 50).all() and (values["bb_pctb_20"] == 0.5).all() and (values["vol_z_24"] == 0).all()


@pytest.mark.parametrize("bars", [1, 2, 13, 14, 15, 25, 34])
def test_few_bars_are_no_error(candles, bars):
    assert btc18(candles[:bars]).shape == (bars, 18)
