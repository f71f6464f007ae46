"""Markets that are made up, so that what can be known of them is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.train import TrainedForecaster, TrainingOptions, train

START = 1_704_067_200
"""2024-01-01, a whole hour."""

Rows = list[list[float]]


@pytest.fixture(scope="session")
def market() -> Callable[..., Rows]:
    """Rows of unix, open, high, low, close, volume, an hour apart.

    Each return is `echo` times the one before and noise with heavy tails; 0 is a random walk. From the share
    `turn` of the rows on, the echo is the opposite.
    """

    def make(bars: int, seed: int = 0, echo: float = 0.0, turn: float = 1.0) -> Rows:
        chance = np.random.default_rng(seed)
        noise = chance.standard_t(5, bars) * 0.004
        returns = np.zeros(bars)
        for bar in range(1, bars):
            returns[bar] = (echo if bar < turn * bars else -echo) * returns[bar - 1] + noise[bar]
        close = 40_000 * np.exp(np.cumsum(returns))
        opened = np.concatenate(([40_000], close[:-1]))
        wicks = 1 + np.abs(chance.normal(0, 0.001, (2, bars)))
        high, low = np.maximum(opened, close) * wicks[0], np.minimum(opened, close) / wicks[1]
        volume = chance.lognormal(5, 1, bars)
        time = START + 3600 * np.arange(bars)
        return np.stack((time, opened, high, low, close, volume), axis=1).tolist()  # type: ignore[no-any-return]

    return make


@pytest.fixture(scope="session")
def written() -> Callable[[Path, Sequence[Sequence[float]]], Path]:
    """Writes rows as a CSV, digit by digit as they are."""

    def write(path: Path, rows: Sequence[Sequence[float]]) -> Path:
        lines = [",".join([str(int(row[0])), *(repr(figure) for figure in row[1:])]) for row in rows]
        path.write_text("\n".join(["unix,open,high,low,close,volume", *lines]) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def candles(market: Callable[..., Rows]) -> Candles:
    """A thousand hours of a random walk."""
    time, *figures = np.array(market(1000)).T
    return Candles(time.astype(np.int64), *figures)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, market: Callable[..., Rows], written: Callable[..., Path]
) -> TrainedForecaster:
    """A forecaster of a market that does echo."""
    csv = written(tmp_path_factory.mktemp("echo") / "echo.csv", market(4000, echo=0.5))
    return train(TrainingOptions(csv, epochs=10), lambda stage, done, total: None)
