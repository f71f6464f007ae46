"""What a model finds of style in a text or an image: one definition for both, and for every model.

A model gives each style's evidence: the log-odds, calibrated, of that style against none at all. Of it are made

    score       sigmoid(evidence), how well the input matches the style, whatever other styles it matches too
    confidence  exp(evidence) / (1 + the sum of it over all styles), the probability that the style is this one

so that where nothing speaks of style both are low, and where two styles are matched alike both scores are high
and neither confidence is over a half. What is found first by the one is found first by the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = np.ndarray[Any, np.dtype[np.float32]]
Matrix = np.ndarray[Any, np.dtype[Any]]

BEST = 3


@dataclass(frozen=True, slots=True)
class Match:
    """One style, with its score and confidence, both in [0, 1]."""

    style: str
    score: float
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The style found first, and the `BEST` ones, it among them. `embedding` is what the model compares inputs
    by, of length 1, float32; None where the model has none for this kind of input."""

    style: str
    score: float
    confidence: float
    matches: tuple[Match, ...]
    embedding: Vector | None = None


def readings(
    styles: Sequence[str], evidence: Matrix, embeddings: Sequence[Vector] | None = None, cap: float = 1.0
) -> list[Reading]:
    """One for each row of `evidence`, [inputs, styles].

    No confidence is over `cap`: where the first would be, all are lowered in the same proportion.
    """
    clipped = np.clip(np.asarray(evidence, np.float64), -50, 50)
    odds = np.exp(clipped)
    scores = odds / (1 + odds)
    confidences = odds / (1 + odds.sum(axis=1, keepdims=True))
    confidences *= np.minimum(1, cap / np.maximum(confidences.max(axis=1, keepdims=True), 1e-12))
    order = np.argsort(-clipped, axis=1, kind="stable")[:, :BEST]
    chosen = (np.take_along_axis(figures, order, axis=1).tolist() for figures in (scores, confidences))
    found = []
    for row, (best, *figures) in enumerate(zip(order.tolist(), *chosen, strict=True)):
        matches = tuple(Match(styles[at], score, share) for at, score, share in zip(best, *figures, strict=True))
        embedding = embeddings[row] if embeddings is not None else None
        found.append(Reading(matches[0].style, matches[0].score, matches[0].confidence, matches, embedding))
    return found
