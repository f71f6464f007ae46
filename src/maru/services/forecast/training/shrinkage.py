"""How far a forecast may be believed: between none (the last close) and all of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CRITICAL = 1.96
"""In standard errors: what can't be told from nothing at the 5% level is taken for nothing."""
WIDTH = 1.0
"""Of Huber's loss, by which the network has learnt: beyond this a miss counts by its size, not its square."""
ROUNDS = 50


def shrinkage(answers: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """The share, 0 to 1, of the answers that belongs in a forecast, judged on windows that neither trained
    nor chose anything.

    It is the slope of the targets on the answers that has the least Huber loss (returns have heavy tails, and a
    few crashes would decide a least-squares slope), times 1 - (1.96 / t)², the positive-part garrote (Breiman,
    1995; Gao, 1998): an answer that is noise gets exactly 0, so that the forecast is the last close, and one
    that is beyond doubt nearly its whole slope. t is the M-estimator's, and holds under changing variance.
    """
    x, y = np.asarray(answers, np.float64), np.asarray(targets, np.float64)
    if not x.any():
        return 0.0
    slope = 0.0
    for _ in range(ROUNDS):
        weight = WIDTH / np.maximum(np.abs(y - slope * x), WIDTH)
        slope = float((weight * x * y).sum() / (weight * x * x).sum())
    missed = y - slope * x
    bend = float((x * x)[np.abs(missed) < WIDTH].sum())
    if slope <= 0 or bend == 0:
        return 0.0
    error = float(np.sqrt(((x * np.clip(missed, -WIDTH, WIDTH)) ** 2).sum())) / bend
    if slope <= CRITICAL * error:
        return 0.0
    return min(1.0, slope * (1 - (CRITICAL * error / slope) ** 2))
