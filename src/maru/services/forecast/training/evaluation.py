"""Whether a forecaster is better than saying that nothing will change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class DieboldMariano:
    """Below zero is better than persistence; `p_value` is two-sided."""

    statistic: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Directions:
    """The share of moves whose direction was forecast, and its 95% interval (Wilson, 1927).

    Counted where both forecast and price moved. The interval takes the moves for independent.
    """

    accuracy: float
    low: float
    high: float
    moves: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A forecaster beside persistence, the forecast that the next close is the last one.

    `mase` is the mean absolute error over persistence's on the same windows; 1 is no better, below is. (Hyndman
    and Koehler, 2006, scale by the error of persistence in training; here both are of the same time, so that a
    calmer market is no merit.) `rmse_skill` is 1 - RMSE over persistence's. `mae` and `rmse` are in units of
    money. `directions` and `diebold_mariano` are None where the forecast never leaves the last close.
    """

    windows: int
    mase: float
    rmse_skill: float
    mae: float
    rmse: float
    persistence_mae: float
    directions: Directions | None
    diebold_mariano: DieboldMariano | None

    @classmethod
    def of(cls, forecast: npt.ArrayLike, actual: npt.ArrayLike, last: npt.ArrayLike) -> Evaluation:
        """ValueError when the price never moves, as every forecast is then beaten or equalled by persistence."""
        predicted, truth, before = (np.asarray(values, np.float64) for values in (forecast, actual, last))
        error, naive = np.abs(predicted - truth), np.abs(before - truth)
        if not naive.any():
            raise ValueError("the price never moves")
        mae, persistence = float(error.mean()), float(naive.mean())
        rmse, naive_rmse = math.sqrt((error**2).mean()), math.sqrt((naive**2).mean())
        return cls(
            windows=len(truth),
            mase=mae / persistence,
            rmse_skill=1 - rmse / naive_rmse,
            mae=mae,
            rmse=rmse,
            persistence_mae=persistence,
            directions=directions(predicted - before, truth - before),
            diebold_mariano=diebold_mariano(error, naive),
        )

    def metrics(self) -> dict[str, float]:
        """All figures there are, by name."""
        found = {
            "windows": float(self.windows),
            "mase": self.mase,
            "rmse_skill": self.rmse_skill,
            "mae": self.mae,
            "rmse": self.rmse,
            "persistence_mae": self.persistence_mae,
        }
        if self.directions:
            found["directional_accuracy"] = self.directions.accuracy
            found["directional_accuracy_low"] = self.directions.low
            found["directional_accuracy_high"] = self.directions.high
        if self.diebold_mariano:
            found["dm_statistic"] = self.diebold_mariano.statistic
            found["dm_p_value"] = self.diebold_mariano.p_value
        return found


def directions(forecast: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> Directions | None:
    """Of moves; None when there is none to judge."""
    judged = (forecast != 0) & (actual != 0)
    n = int(judged.sum())
    if n == 0:
        return None
    share = float((np.sign(forecast) == np.sign(actual))[judged].mean())
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return Directions(share, max(0.0, middle - half), min(1.0, middle + half), n)


def diebold_mariano(
    losses: npt.NDArray[np.float64], others: npt.NDArray[np.float64], lags: int | None = None
) -> DieboldMariano | None:
    """Whether the losses of two forecasts of one step ahead differ (Diebold and Mariano, 1995).

    The variance is Newey and West's (1987), with Bartlett weights over `lags`, 4 (n/100)^(2/9) where not given
    (1994). With the small-sample correction of Harvey, Leybourne and Newbold (1997), judged by Student's t with
    n - 1 degrees of freedom. None when all differences are equal, or there are too few.
    """
    difference = losses - others
    n = len(difference)
    if n < 3:
        return None
    most = int(4 * (n / 100) ** (2 / 9)) if lags is None else lags
    centred = difference - difference.mean()
    variance = float(centred @ centred) / n
    for lag in range(1, min(most, n - 1) + 1):
        variance += 2 * (1 - lag / (most + 1)) * float(centred[lag:] @ centred[:-lag]) / n
    if variance <= 0:
        return None
    statistic = float(difference.mean()) / math.sqrt(variance / n) * math.sqrt((n - 1) / n)
    return DieboldMariano(statistic, two_sided(statistic, n - 1))


def two_sided(statistic: float, freedom: int) -> float:
    """The p-value of Student's t, by Wallace's (1959) approximation: within 0.002 from 3 degrees of freedom on."""
    squared = statistic * statistic / freedom
    normal = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(squared))
    return math.erfc(normal / math.sqrt(2))
