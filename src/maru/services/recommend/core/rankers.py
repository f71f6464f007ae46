"""What gives each candidate its probability: trees, or the fused order where no trees have earned their place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maru.services.recommend.core.boosting import RankerOptions, train_ranker
from maru.services.recommend.core.events import TYPES, Floats
from maru.services.recommend.core.examples import Examples
from maru.services.recommend.core.features import CANDIDATES, FEATURE_NAMES
from maru.services.recommend.core.trees import Doubles, Forest, predict

__all__ = ["Fused", "Ranker", "RankerOptions", "Scorer", "open_rankers", "train_ranker"]


class Scorer(Protocol):
    def score(self, features: Floats) -> Floats:
        """float32 [m]: the probability, 0 to 1, that each of the m candidates of one session is a later click (cart,
        order). `features` is float32 [m, 256], in the fused order of the candidates."""
        ...


class Ranker:
    """LightGBM's trees, run by our own walk: the same sums bit for bit, without its threads."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest

    @classmethod
    def open(cls, path: Path) -> Ranker:
        """From LightGBM's text format. ValueError says what is wrong with the file."""
        forest = Forest.parse(path.read_text(encoding="utf-8"))
        if forest.features != FEATURE_NAMES:
            raise ValueError(f"{path.name} was not trained on the features of this version")
        return cls(forest)

    def score(self, features: Floats) -> Floats:
        return predict(features, self._forest)


class Fused:
    """The fused order itself: `curve` float32 [100] is the probability at each of its places, never rising."""

    def __init__(self, curve: Floats | None = None) -> None:
        """Without a curve the probabilities are a guess, and only their order means something."""
        self._curve = (0.5 / (1 + np.arange(CANDIDATES))).astype(np.float32) if curve is None else curve

    @classmethod
    def fit(cls, examples: Examples, objective: int) -> Fused:
        """How often the candidate at each place was what followed."""
        hits = np.bincount(examples.place[examples.labels[:, objective]], minlength=CANDIDATES)
        # One hit in a thousand candidates is presumed, so that a place without a hit is not impossible.
        visits = (examples.reached + 1).astype(np.float64)
        return cls(_never_rising((hits + 0.001) / visits, visits))

    @classmethod
    def open(cls, path: Path) -> Fused:
        """ValueError for a file that `save` did not write."""
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        curve = np.asarray(told["curve"] if isinstance(told, dict) and "curve" in told else [], np.float32)
        if curve.shape != (CANDIDATES,) or not ((curve >= 0) & (curve <= 1)).all() or (np.diff(curve) > 0).any():
            raise ValueError(f"{path.name} does not hold {CANDIDATES} probabilities that never rise")
        return cls(curve)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"curve": [round(float(p), 9) for p in self._curve]}) + "\n", encoding="utf-8")

    def score(self, features: Floats) -> Floats:
        return self._curve[: len(features)]


def open_rankers(folder: Path) -> Mapping[str, Scorer]:
    """Those of a bundle: clicks.txt holds trees, clicks.json a fused curve; likewise carts and orders."""
    rankers: dict[str, Scorer] = {}
    for name in TYPES:
        if (folder / f"{name}.txt").exists():
            rankers[name] = Ranker.open(folder / f"{name}.txt")
        elif (folder / f"{name}.json").exists():
            rankers[name] = Fused.open(folder / f"{name}.json")
    return rankers


def _never_rising(rates: Doubles, weights: Doubles) -> Floats:
    """The closest sequence that never rises: neighbours that do are pooled, each counting by its weight."""
    pools: list[tuple[float, float, int]] = []
    for rate, weight in zip(rates.tolist(), weights.tolist(), strict=True):
        pools.append((rate, weight, 1))
        while len(pools) > 1 and pools[-1][0] > pools[-2][0]:
            (rate, more, count), (before, weight, others) = pools.pop(), pools.pop()
            pools.append(((rate * more + before * weight) / (more + weight), more + weight, count + others))
    levels = np.repeat([rate for rate, _, _ in pools], [count for _, _, count in pools])
    curve: Floats = np.minimum(levels, 1).astype(np.float32)
    return curve
