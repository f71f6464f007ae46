"""What a forecaster is shown of each bar. Every figure at a bar is made of that bar and earlier ones alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from maru.services.forecast.training.data import Candles, Floats

FLAT = 1e-12
"""A spread this small beside its level is rounding: the market did not move."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A list of features, in the order in which a model takes them, and how to compute them.

    `prices` and `volumes` are the places of the features in units of money and of trade, which a model takes
    relative to the window; the rest have no unit. The first `warmup` bars are those in which a running average
    still remembers where it began. `compute` gives float64 [bars, features] for bars without a gap, not a
    number where there is not yet enough of the past.
    """

    name: str
    names: tuple[str, ...]
    prices: tuple[int, ...]
    volumes: tuple[int, ...]
    close_index: int
    warmup: int
    compute: Callable[[Candles], Floats]


def btc18(candles: Candles) -> Floats:
    """The eighteen features of `FEATURE_SETS["btc18"]`; float64 [bars, 18]."""
    c = candles
    level = np.log(c.close)
    returns = _change(level, 1)
    volume = np.log1p(c.volume)
    average, spread = _rolling(c.close, 20)
    usual, unrest = _rolling(volume, 24, 1)
    macd = _average(c.close, 12, 2 / 13) - _average(c.close, 26, 2 / 27)
    columns = (
        c.open,
        c.high,
        c.low,
        c.close,
        c.volume,
        returns,
        _change(level, 3),
        _change(level, 12),
        _change(level, 24),
        np.log(c.high / c.low),
        np.log(c.close / c.open),
        _rolling(returns, 12, 1)[1],
        _rolling(returns, 24, 1)[1],
        rsi(c.close, 14),
        (macd - _average(macd, 9, 2 / 10)) / c.close,
        _divided(c.close - average + 2 * spread, 4 * spread, average, 0.5),
        atr(c, 14) / c.close,
        _divided(volume - usual, unrest, usual, 0.0),
    )
    return np.stack(columns, axis=1)


def rsi(close: Floats, bars: int) -> Floats:
    """Wilder's relative strength index, 0 to 100; 50 where the price stood still."""
    change = _change(close, 1)
    up = _average(np.maximum(change, 0), bars, 1 / bars)
    down = _average(np.maximum(-change, 0), bars, 1 / bars)
    return 100 * _divided(up, up + down, close, 0.5)


def atr(candles: Candles, bars: int) -> Floats:
    """Wilder's average true range, in units of money."""
    before = np.concatenate(([np.nan], candles.close[:-1]))
    ranges = (candles.high - candles.low, np.abs(candles.high - before), np.abs(candles.low - before))
    return _average(np.maximum.reduce(ranges), bars, 1 / bars)


def _change(values: Floats, bars: int) -> Floats:
    changed = np.full(len(values), np.nan)
    changed[bars:] = values[bars:] - values[:-bars]
    return changed


def _rolling(values: Floats, bars: int, freedom: int = 0) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the last `bars`, each window by itself: no error adds up along the way."""
    mean, spread = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if len(values) >= bars:
        windows = sliding_window_view(values, bars)
        mean[bars - 1 :], spread[bars - 1 :] = windows.mean(axis=1), windows.std(axis=1, ddof=freedom)
    return mean, spread


def _average(values: Floats, bars: int, weight: float) -> Floats:
    """Exponential average, begun with the plain mean of the first `bars`."""
    averaged = np.full(len(values), np.nan)
    first = int(np.isnan(values).sum())
    start = first + bars - 1
    if start < len(values):
        value = float(values[first : start + 1].mean())
        averaged[start] = value
        for place, new in enumerate(values[start + 1 :].tolist(), start + 1):
            value += weight * (new - value)
            averaged[place] = value
    return averaged


def _divided(part: Floats, whole: Floats, level: Floats, flat: float) -> Floats:
    """part / whole, and `flat` where the whole is nothing beside the level."""
    nothing = np.abs(whole) <= FLAT * (1 + np.abs(level))
    return np.where(nothing, flat, part / np.where(nothing, 1, whole))


FEATURE_SETS = {
    "btc18": FeatureSet(
        name="btc18",
        names=(
            "open",
            "high",
            "low",
            "close",
            "volume",
            "ret_1",
            "ret_3",
            "ret_12",
            "ret_24",
            "hl_range",
            "body",
            "vol_12",
            "vol_24",
            "rsi_14",
            "macd_hist_rel",
            "bb_pctb_20",
            "atr_14_rel",
            "vol_z_24",
        ),
        prices=(0, 1, 2, 3),
        volumes=(4,),
        close_index=3,
        warmup=150,
        compute=btc18,
    )
}
"""By the names that `maru train forecast --features` takes."""
