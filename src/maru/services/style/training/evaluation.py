"""What a text matcher is worth on sentences that it was not taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from maru.services.style.calibration import balanced, probabilities

BINS = 10

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Figures:
    """texts        how many
    styles       the share of the texts with a style whose style was found
    lost         the share of those in which none was found
    none         the share of the texts without a style in which none was found
    log_loss     the mean of -log of the probability that the truth was given
    calibration  the expected calibration error: how far, on average, the share of right answers is from the
                 probability that was given, in ten bins of that probability

    The last two count texts without a style for as much as all others together, as the calibration does.
    """

    texts: int
    styles: float
    lost: float
    none: float
    log_loss: float
    calibration: float

    def written(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def figures(evidence: Array, labels: Sequence[int]) -> Figures:
    """Of evidence [texts, styles]; a label is a style's place, or the number of styles for none."""
    truth, given = np.asarray(labels), probabilities(evidence)
    none = evidence.shape[1]
    found = given.argmax(axis=1)
    styled, weights = truth != none, balanced(labels, none)
    return Figures(
        texts=len(truth),
        styles=float((found == truth)[styled].mean()),
        lost=float((found == none)[styled].mean()),
        none=float((found == none)[~styled].mean()) if not styled.all() else float("nan"),
        log_loss=float(-np.log(np.maximum(given[np.arange(len(truth)), truth], 1e-12)) @ weights / len(truth)),
        calibration=_calibration_error(given.max(axis=1), found == truth, weights),
    )


def _calibration_error(said: Array, right: Array, weights: Array) -> float:
    places = np.minimum((said * BINS).astype(int), BINS - 1)
    off = np.bincount(places, (said - right) * weights, BINS)
    return float(np.abs(off).sum() / len(said))
