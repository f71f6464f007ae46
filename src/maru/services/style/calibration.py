"""From what a model answers to log-odds that can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Evidence = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """evidence = scale * answer + offsets, one offset a style."""

    scale: float
    offsets: tuple[float, ...]

    @classmethod
    def none(cls, styles: int) -> Calibration:
        """Takes answers as they are."""
        return cls(1.0, (0.0,) * styles)

    @classmethod
    def read(cls, fields: Mapping[str, Any], styles: int) -> Calibration:
        """From a manifest; ValueError when it is none for so many styles."""
        scale, offsets = fields.get("scale"), fields.get("offsets")
        if not isinstance(offsets, list) or len(offsets) != styles:
            raise ValueError("the calibration does not have an offset for each style")
        numbers = [float(number) for number in (scale, *offsets) if isinstance(number, int | float)]
        if len(numbers) != styles + 1 or not np.isfinite(numbers).all() or numbers[0] <= 0:
            raise ValueError("the calibration is not made of numbers, with a scale above zero")
        return cls(numbers[0], tuple(numbers[1:]))

    def written(self) -> dict[str, Any]:
        """For a manifest."""
        return {"scale": self.scale, "offsets": list(self.offsets)}

    def __call__(self, answers: Evidence) -> Evidence:
        evidence: Evidence = answers * self.scale + np.asarray(self.offsets)
        return evidence


def probabilities(evidence: Evidence) -> Evidence:
    """[n, styles + 1], the last that of no style."""
    odds = np.exp(np.clip(evidence, -50, 50))
    total = 1 + odds.sum(axis=1, keepdims=True)
    shares: Evidence = np.concatenate((odds, np.ones((len(odds), 1))), axis=1) / total
    return shares


STEPS, RATE = 800, 0.05
STEADY = 1e-3


def balanced(labels: Sequence[int], none: int) -> Evidence:
    """Weights of a mean of 1 by which as many inputs have no style as have one; all alike where there are no others."""
    lacking = np.asarray(labels) == none
    share = lacking.mean()
    return np.where(lacking, 0.5 / share, 0.5 / (1 - share)) if 0 < share < 1 else np.ones(len(lacking))


def fit(answers: Evidence, labels: Sequence[int], *, freedom: float = 0.0) -> Calibration:
    """The calibration that makes `labels` most likely; a label is a style's place, or the number of styles for none.

    Those without a style count for as much together as all others, as it is not known how often people ask about
    nothing. Where there are none of them nothing is known of it, and what the model itself calls even stays even. All
    styles share one offset; `freedom` above 0 lets each have one of its own as well: it is the variance, in log-odds,
    that these are expected to have, so that few examples move them little.
    """
    count, styles = answers.shape
    weights = balanced(labels, styles)[:, None]
    wanted = np.eye(styles + 1)[np.asarray(labels)][:, :styles]
    middle = float(answers.mean()) if styles in labels else 0.0
    spread = max(float(answers.std()), 1e-6)
    given = (answers - middle) / spread
    values = np.zeros(2 + styles)  # the logarithm of the scale, the shared offset, the styles' own
    free = np.array([True, styles in labels, *[freedom > 0] * styles])
    held = np.array([STEADY, STEADY, *[1 / (freedom * count) if freedom else 0.0] * styles])
    first, second = np.zeros_like(values), np.zeros_like(values)
    for step in range(1, STEPS + 1):
        scale = np.exp(values[0])
        off = (probabilities(given * scale + values[1] + values[2:])[:, :styles] - wanted) * weights
        slope = np.concatenate(([(off * given).sum() * scale, off.sum()], off.sum(axis=0))) / count + held * values
        slope *= free
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        ease = min(1.0, 2 * (1 - step / STEPS) + 0.02)
        values -= RATE * ease * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-9)
    scale = float(np.exp(values[0])) / spread
    return Calibration(scale, tuple((values[1] + values[2:] - scale * middle).tolist()))
