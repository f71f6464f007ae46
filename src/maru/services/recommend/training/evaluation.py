"""What rankers are worth on time they have not seen: beside the fused candidates, and beside simple ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.events import TYPES, Events, Flags, Floats, Int64s
from maru.services.recommend.core.examples import Examples, Visit, gather_examples
from maru.services.recommend.core.index import Index
from maru.services.recommend.core.rankers import Scorer
from maru.services.recommend.core.recommender import WEIGHTS
from maru.services.recommend.training.baselines import Baseline, Covisitation, Popularity, SessionNeighbours, recommend
from maru.services.recommend.training.outcomes import TOP, Doubles, Figure, Outcomes, calibration, possible
from maru.services.recommend.training.progress import Progress

SERVED, RANKERS, FUSED = "served", "rankers", "fused"
LOT = 500
"""Visits whose features are in memory at once: 50,000 rows of 256 figures, 51 MB."""
MEASURING = "measuring"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All ways to recommend, on the same visits.

    `served` is what the API answers: one list, sorted by the combined score of the scorers that are shipped.
    `rankers` are three lists, each sorted by one ranker's score, whether it is shipped or not: a type's recall is
    that of its own list, as OTTO measures. `fused` is the candidates' order before any ranker. `shipped` says by
    type whether its ranker is; `gates`, how much more than the fused order it hits. `calibration` is of the clicks,
    over what is served.
    """

    ways: Mapping[str, Outcomes]
    shipped: Mapping[str, bool]
    gates: Mapping[str, Figure]
    calibration: Sequence[Mapping[str, float]]

    @property
    def visits(self) -> int:
        return len(self.ways[SERVED].hits)

    def figures(self) -> dict[str, dict[str, Figure]]:
        """By way, then by metric."""
        return {way: outcomes.figures() for way, outcomes in self.ways.items()}

    def ahead(self) -> dict[str, dict[str, Figure]]:
        """How much better the served list is than each of the other ways, visit by visit."""
        served = self.ways[SERVED]
        return {way: served.beyond(outcomes) for way, outcomes in self.ways.items() if way != SERVED}


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of all visits, one a row. `visit` counts the visits, `place` is that in the fused order;
    `labels`, `ranked` and `fused` [rows, 3] are what followed and what each scorer thought, by `TYPES`. Where there
    is no ranker, `ranked` is what is `fused`."""

    visit: Int64s
    place: Int64s
    labels: Flags
    ranked: Floats
    fused: Floats

    @classmethod
    def of(
        cls,
        index: Index,
        visits: Sequence[Visit],
        rankers: Mapping[str, Scorer],
        fused: Mapping[str, Scorer],
        *,
        threads: int,
        progress: Progress,
    ) -> Candidates:
        lots = []
        for begin in range(0, len(visits), LOT):
            examples = gather_examples(index, visits[begin : begin + LOT], rate=1.0, threads=threads)
            lots.append(cls._lot(examples, begin, rankers, fused))
            progress(MEASURING, 0.7 * min(1.0, (begin + LOT) / len(visits)))
        return cls(*(np.concatenate([getattr(lot, name) for lot in lots]) for name in cls.__slots__))

    @classmethod
    def _lot(
        cls, examples: Examples, begin: int, rankers: Mapping[str, Scorer], fused: Mapping[str, Scorer]
    ) -> Candidates:
        edges = np.flatnonzero(np.diff(examples.visit, prepend=-1, append=-2))
        parts = [examples.features[start:stop] for start, stop in pairwise(edges.tolist())]
        by_place = [np.concatenate([np.zeros(0, np.float32), *map(fused[name].score, parts)]) for name in TYPES]
        by_trees = [
            rankers[name].score(examples.features) if name in rankers else by_place[type]
            for type, name in enumerate(TYPES)
        ]
        return cls(
            examples.visit.astype(np.int64) + begin,
            examples.place.astype(np.int64),
            examples.labels,
            np.stack(by_trees, axis=1),
            np.stack(by_place, axis=1),
        )

    def order(self, scores: NDArray[np.floating[Any]]) -> tuple[Int64s, Int64s]:
        """The rows visit by visit, the best first, and the place from 0 that each then has. Equals in fused order."""
        order = np.lexsort((self.place, -scores, self.visit))
        visit = self.visit[order]
        begins = np.flatnonzero(np.diff(visit, prepend=-1))
        counts = np.diff(np.append(begins, len(visit)))
        return order, np.arange(len(visit)) - np.repeat(begins, counts)

    def outcomes(self, visits: Sequence[Visit], scores: NDArray[np.floating[Any]]) -> Outcomes:
        """Of three lists a visit, for clicks, carts and orders, each sorted by its column of `scores` [rows, 3]."""
        hits, reciprocal = np.zeros((len(visits), len(TYPES))), np.zeros(len(visits))
        for type in range(len(TYPES)):
            order, place = self.order(scores[:, type])
            right = self.labels[order, type] & (place < TOP)
            hits[:, type] = np.bincount(self.visit[order][right], minlength=len(visits))
            if type == 0:
                np.maximum.at(reciprocal, self.visit[order][right], 1 / (1 + place[right]))
        return Outcomes(hits, possible(visits), reciprocal)


def evaluate(
    index: Index,
    events: Events,
    visits: Sequence[Visit],
    rankers: Mapping[str, Scorer],
    fused: Mapping[str, Scorer],
    *,
    threads: int,
    progress: Progress,
) -> Evaluation:
    """Measure on visits that the index, which was made of `events`, has not seen.

    A type's ranker is shipped when its list hits more of what was new and wanted than the fused order does. What is
    chosen so is measured on the same visits: the better of two looks a little better there than it is.
    """
    found = Candidates.of(index, visits, rankers, fused, threads=threads, progress=progress)
    ranked = found.outcomes(visits, found.ranked)
    before = found.outcomes(visits, np.repeat(-found.place[:, None], len(TYPES), axis=1).astype(np.float32))
    better = ranked.beyond(before)
    gates = {name: better[f"recall@{TOP}_{name}"] for name in TYPES if f"recall@{TOP}_{name}" in better}
    shipped = {name: name in rankers and name in gates and gates[name].value > 0 for name in TYPES}
    scores = np.where([shipped[name] for name in TYPES], found.ranked, found.fused)
    combined = scores.astype(np.float64) @ np.array([WEIGHTS[name] for name in TYPES])
    served = found.outcomes(visits, np.repeat(combined[:, None], len(TYPES), axis=1))
    ways = {SERVED: served, RANKERS: ranked, FUSED: before, **_simple(index, events, visits, progress)}
    return Evaluation(ways, shipped, gates, _calibrated(found, scores[:, 0], combined))


def _simple(index: Index, events: Events, visits: Sequence[Visit], progress: Progress) -> dict[str, Outcomes]:
    """What it would be worth to recommend without much ado."""
    ways: dict[str, Baseline] = {
        "V-SKNN": SessionNeighbours(events),
        "co-visitation": Covisitation(index.shop.partners[:, 0], index.shop.weights[:, 0]),
        "popularity": Popularity(events),
    }
    found = {}
    for number, (name, way) in enumerate(ways.items()):
        found[name] = Outcomes.of(visits, [recommend(way, events, visit) for visit in visits])
        progress(MEASURING, (0.8, 0.9, 1.0)[number])
    return found


def _calibrated(
    found: Candidates, clicks: NDArray[np.floating[Any]], combined: NDArray[np.floating[Any]]
) -> list[dict[str, float]]:
    """Of what is served, the first 20 of each visit: the scores that callers see."""
    order, place = found.order(combined)
    shown = order[place < TOP]
    predicted: Doubles = clicks[shown].astype(np.float64)
    return calibration(predicted, found.labels[shown, 0])
