"""From raw windows to what the network sees, in a form that no level of prices spoils."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maru.services.forecast.training.features import FeatureSet
from maru.services.forecast.training.windows import Singles, Windows

TINY = 1e-30
"""Prices below are taken for this: what a caller sends may be zero or less, and has no logarithm."""
WIDEST = 6.0
"""In standard deviations. What is farther out was not seen in training."""
LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Prices become logarithms relative to the window's last close, volumes logarithms relative to their mean in
    the window; then each feature is centred and divided by its spread in training, and clamped.

    `target_spread` is the standard deviation of the logarithmic return that is forecast, and no forecast moves
    the last close by more than `bound`, the largest return in training.
    """

    features: FeatureSet
    mean: Singles
    spread: Singles
    target_spread: float
    bound: float

    @classmethod
    def fit(cls, windows: Windows, features: FeatureSet) -> Scaling:
        """On training windows alone."""
        unscaled = _relative(windows.inputs, features)
        returns = windows.returns
        return cls(
            features,
            unscaled.mean(axis=(0, 1), dtype=np.float64).astype(np.float32),
            np.maximum(unscaled.std(axis=(0, 1), dtype=np.float64), LEAST_SPREAD).astype(np.float32),
            max(float(returns.std()), LEAST_SPREAD),
            max(float(np.abs(returns).max()), LEAST_SPREAD),
        )

    def inputs(self, windows: Singles) -> Singles:
        """What the network sees, float32 [n, seq_len, features]."""
        scaled = (_relative(windows, self.features) - self.mean) / self.spread
        return np.asarray(np.clip(scaled, -WIDEST, WIDEST))

    def targets(self, windows: Windows) -> Singles:
        """What the network is to answer, float32 [n]."""
        return np.asarray(windows.returns / self.target_spread, np.float32)

    def prices(self, answers: Singles, last: Singles, shrinkage: float) -> Singles:
        """The forecast close, of which the logarithmic move is `shrinkage` times what the network answers."""
        bound = np.float32(self.bound)
        moves = np.clip(answers * np.float32(shrinkage * self.target_spread), -bound, bound)
        return np.asarray(last * np.exp(moves), np.float32)


def _relative(windows: Singles, features: FeatureSet) -> Singles:
    result = windows.copy()
    prices, volumes = list(features.prices), list(features.volumes)
    close = features.close_index
    last = np.maximum(windows[:, -1:, close : close + 1], np.float32(TINY))
    result[:, :, prices] = np.log(np.maximum(windows[:, :, prices], np.float32(TINY)) / last)
    traded = np.log(np.maximum(windows[:, :, volumes], np.float32(0)) + np.float32(1))
    result[:, :, volumes] = traded - traded.mean(axis=1, keepdims=True)
    return result
