"""What came of recommending to visits whose end is known: hits, places, and how sure that makes us."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.events import TYPES, Flags
from maru.services.recommend.core.examples import Visit
from maru.services.recommend.core.recommender import WEIGHTS

Doubles = NDArray[np.float64]

TOP = 20
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its 95% interval, by resampling the visits."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What one way to recommend brought. `hits` [visits, 3]: how many of the first 20 were wanted, by `TYPES`;
    `possible` [visits, 3]: how many could have been; `reciprocal` [visits]: 1 over the place, from 1, of what was
    clicked next, 0 where it was not among the first 20."""

    hits: Doubles
    possible: Doubles
    reciprocal: Doubles

    @classmethod
    def of(cls, visits: Sequence[Visit], lists: Sequence[NDArray[np.int64]]) -> Outcomes:
        """Of one list of item ids a visit, best first."""
        hits, reciprocal = np.zeros((len(visits), len(TYPES))), np.zeros(len(visits))
        for number, (visit, ranked) in enumerate(zip(visits, lists, strict=True)):
            for type, name in enumerate(TYPES):
                right = np.isin(ranked[:TOP], visit.later[name])
                hits[number, type] = right.sum()
                if type == 0 and right.any():
                    reciprocal[number] = 1 / (1 + int(np.argmax(right)))
        return cls(hits, possible(visits), reciprocal)

    @classmethod
    def join(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """Of several lots of visits together."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many visits something new was wanted in, by `TYPES`."""
        return dict(zip(TYPES, (self.possible > 0).sum(0).tolist(), strict=True))

    def figures(self, seed: int = 0) -> dict[str, Figure]:
        """By the names of `metrics`."""
        return _with_intervals([self], lambda found: found[0], seed)

    def beyond(self, other: Outcomes, seed: int = 0) -> dict[str, Figure]:
        """How much better than the other on the same visits. An interval above 0 is no chance."""
        return _with_intervals(
            [self, other], lambda found: {name: found[0][name] - found[1][name] for name in found[0]}, seed
        )

    def over(self, other: Outcomes, seed: int = 0) -> dict[str, Figure]:
        """How many times as good as the other on the same visits, where the other hits anything."""
        return _with_intervals(
            [self, other],
            lambda found: {name: found[0][name] / found[1][name] for name in found[0] if found[1][name]},
            seed,
        )

    def metrics(self, drawn: Doubles | None = None) -> dict[str, float]:
        """`recall@20_clicks`, `…_carts`, `…_orders`, where any was wanted: hits over what could have been hit.
        `weighted`: OTTO's mean of the three, 0.1, 0.3 and 0.6, over those there are. `mrr@20`: of the next click.
        `drawn` says how often each visit counts."""
        times = np.ones(len(self.hits)) if drawn is None else drawn
        hits, could = times @ self.hits, times @ self.possible
        found, weighted, weights = {}, 0.0, 0.0
        for type, name in enumerate(TYPES):
            if could[type] > 0:
                recall = float(hits[type] / could[type])
                found[f"recall@{TOP}_{name}"] = recall
                weighted, weights = weighted + WEIGHTS[name] * recall, weights + WEIGHTS[name]
        if weights:
            found["weighted"] = weighted / weights
        clicked = float(times @ (self.possible[:, 0] > 0))
        if clicked:
            found[f"mrr@{TOP}"] = float(times @ self.reciprocal) / clicked
        return found


def possible(visits: Sequence[Visit]) -> Doubles:
    """How many of what was wanted a list of 20 could hold, by visit and type."""
    wanted = [[min(TOP, len(visit.later[name])) for name in TYPES] for visit in visits]
    return np.array(wanted, np.float64).reshape(-1, len(TYPES))


def _with_intervals(
    outcomes: Sequence[Outcomes], take: Callable[[list[dict[str, float]]], dict[str, float]], seed: int
) -> dict[str, Figure]:
    """Each figure that `take` makes of the metrics, and where 95% of its resampled values are."""
    chance = np.random.default_rng(seed)
    visits = len(outcomes[0].hits)
    values = take([each.metrics() for each in outcomes])
    resampled: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(RESAMPLES):
        drawn = np.bincount(chance.integers(0, visits, visits), minlength=visits).astype(np.float64)
        found = take([each.metrics(drawn) for each in outcomes])
        for name in values:
            if name in found:
                resampled[name].append(found[name])
    edges = {name: np.quantile(many, (0.025, 0.975)) for name, many in resampled.items()}
    return {name: Figure(value, *map(float, edges[name])) for name, value in values.items()}


def calibration(predicted: Doubles, actual: Flags, bins: int = 10) -> list[dict[str, float]]:
    """Predicted probabilities beside how often it came true, by tenths of the predictions, the lowest first."""
    found = []
    for part in np.array_split(np.argsort(predicted, kind="stable"), bins):
        if len(part):
            found.append(
                {
                    "predicted": float(predicted[part].mean()),
                    "actual": float(actual[part].mean()),
                    "candidates": len(part),
                    "positive": int(actual[part].sum()),
                }
            )
    return found
