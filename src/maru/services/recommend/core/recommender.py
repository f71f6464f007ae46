"""One session in, its next items out: candidates, their scores, and what stands in where nothing is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.events import TYPES, Floats, Int8s, Int32s, Int64s
from maru.services.recommend.core.explaining import Explainer, Source
from maru.services.recommend.core.features import CANDIDATES, DIMENSIONS, SHARES
from maru.services.recommend.core.index import Index
from maru.services.recommend.core.kernel import History, Kernel, Proposed
from maru.services.recommend.core.rankers import Fused, Scorer, open_rankers

__all__ = ["COMBINED", "WEIGHTS", "Query", "Ranked", "Recommender", "Source"]

WEIGHTS: Mapping[str, float] = {"clicks": 0.1, "carts": 0.3, "orders": 0.6}

COMBINED = "combined"
"""The name of the score that the answer is ordered by: the mean of the others by their weights."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked. `aids` int64, `ts` int64 seconds and `types` int8 are the session's events, in any order.

    Nothing of `aids` nor `exclude` is recommended; with `include`, nothing but its items; with `categories`, nothing
    outside them. Item ids that the catalogue does not hold are ignored. `weights` are by the names of `TYPES`, none
    negative and not all zero; a name left out weighs nothing.
    """

    aids: Int64s
    ts: Int64s
    types: Int8s
    top_k: int = 20
    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    exclude: Int64s | None = None
    include: Int64s | None = None
    categories: Sequence[int] | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer: `aids` int64 [k], best first, and by the names of `TYPES` and `combined` float32 [k] in [0, 1].

    `fallback` says that nothing of the session was known, so that popularity alone decided. `sources`, when asked to
    explain, holds for each item what brought it up, strongest first. `vector` float32 [128] is the session's
    embedding: zeros when no item of the session has one.
    """

    aids: Int64s
    scores: Mapping[str, Floats]
    fallback: bool
    sources: list[list[Source]] | None
    vector: Floats


class Recommender:
    """An index and its rankers. Safe to use from several threads at once."""

    def __init__(self, index: Index, rankers: Mapping[str, Scorer]) -> None:
        """`rankers` by the names of `TYPES`; for a name without one the fused candidates serve."""
        self.index = index
        self._scorers = [rankers.get(name) or Fused() for name in TYPES]
        self._idle: deque[Kernel] = deque()

    @classmethod
    def open(cls, folder: Path) -> Recommender:
        """The index and the rankers of a bundle's folder. ValueError says which file is wrong, and how."""
        return cls(Index.open(folder), open_rankers(folder))

    def recommend(self, query: Query) -> Ranked:
        """`top_k` items, or the whole rest of the catalogue that the filters let through.

        The candidates come first, by what the rankers make of them; behind them, by popularity, what fills up, those of
        the session's categories before others. ValueError for weights that `Query` does not allow.
        """
        weights = _shares(query.weights)
        codes = self.index.codes(query.aids)
        history = History.of(codes, query.ts, query.types)
        barred = codes if query.exclude is None else np.concatenate((codes, self.index.codes(query.exclude)))
        barred = barred[barred >= 0]
        allowed = self._allowed(query)
        if not len(history):
            return self._fallback(query, weights, barred, allowed)
        with self._kernel() as kernel:
            proposed = kernel.propose(history, barred, allowed)
            scores = np.stack([scorer.score(proposed.features) for scorer in self._scorers]).astype(np.float64)
            combined = weights @ scores
            order = np.argsort(-combined, kind="stable")[: query.top_k]
            best, scores, combined = proposed.codes[order], scores[:, order], combined[order]
            if len(best) < query.top_k:
                taken = np.concatenate((barred, best))
                filling = self._filling(history, taken, allowed, query.top_k - len(best))
                behind = _behind(scores, len(filling))
                best, scores = np.concatenate((best, filling)), np.concatenate((scores, behind), axis=1)
                combined = np.concatenate((combined, weights @ behind))
            return Ranked(
                self.index.arrays.catalogue[best],
                _named(scores, combined),
                False,
                self._explained(kernel, proposed, history, best) if query.explain else None,
                proposed.vector.copy(),
            )

    def warm(self) -> None:
        """Answer one query of each shape, so that nothing is compiled in a request."""
        arrays = self.index.arrays
        known = arrays.catalogue[:1].astype(np.int64)
        ts, types = np.zeros(1, np.int64), np.zeros(1, np.int8)
        self.recommend(Query(known, ts, types, top_k=2 * CANDIDATES, explain=True))
        self.recommend(Query(known, ts, types, include=arrays.catalogue[:2].astype(np.int64)))
        self.recommend(Query(known[:0], ts[:0], types[:0]))
        self.index.session_vector(int(arrays.session_ids[0]))

    @contextmanager
    def _kernel(self) -> Iterator[Kernel]:
        try:
            kernel = self._idle.pop()
        except IndexError:
            kernel = Kernel(self.index)
        yield kernel
        # Not after an error: it may have been left in the middle of its work.
        self._idle.append(kernel)

    def _allowed(self, query: Query) -> Int32s | None:
        """The codes that the filters let through, the most popular first; None without a filter."""
        if query.include is None:
            return None if query.categories is None else self.index.in_categories(query.categories)
        codes = np.unique(self.index.codes(query.include))
        codes = codes[codes >= 0]
        if query.categories is not None:
            wanted = np.asarray([category for category in query.categories if category >= 0], np.int64)
            codes = codes[np.isin(self.index.arrays.categories[codes], wanted)]
        return self.index.by_popularity(codes)

    def _fallback(self, query: Query, weights: Doubles, barred: Int32s, allowed: Int32s | None) -> Ranked:
        """What is popular, by the parts of all recent clicks, carts and orders that were an item's."""
        pool = self.index.arrays.popular if allowed is None else allowed
        # The most popular by any weights are among these, or so near to it that nobody would miss them.
        pool = _free(self.index, pool[: max(4 * query.top_k, 10 * CANDIDATES) + len(barred)], barred)
        shares = self.index.arrays.stats[pool, SHARES : SHARES + len(TYPES)].T.astype(np.float64)
        combined = weights @ shares
        order = np.argsort(-combined, kind="stable")[: query.top_k]
        sources = [[Source("popular", place + 1, None)] for place in range(len(order))] if query.explain else None
        aids = self.index.arrays.catalogue[pool[order]]
        return Ranked(aids, _named(shares[:, order], combined[order]), True, sources, np.zeros(DIMENSIONS, np.float32))

    def _filling(self, history: History, taken: Int32s, allowed: Int32s | None, count: int) -> Int32s:
        if allowed is not None:
            return _free(self.index, allowed, taken)[:count]
        categories = self.index.arrays.categories[history.codes]
        alike = _free(self.index, self.index.in_categories(categories), taken)[:count]
        rest = _free(self.index, self.index.arrays.popular, np.concatenate((taken, alike)))
        return np.concatenate((alike, rest[: count - len(alike)]))

    def _explained(self, kernel: Kernel, proposed: Proposed, history: History, codes: Int32s) -> list[list[Source]]:
        items = np.array(list(dict.fromkeys(history.codes[::-1].tolist())), np.int32)
        explainer = Explainer(self.index, kernel, proposed, items)
        return [explainer.sources(code) for code in codes.tolist()]


def _shares(weights: Mapping[str, float]) -> Doubles:
    """float64 [3], by `TYPES`, adding up to one."""
    unknown = [name for name in weights if name not in TYPES]
    if unknown:
        raise ValueError(f"weights are for {', '.join(TYPES)} and nothing else")
    parts = np.array([weights.get(name, 0.0) for name in TYPES], np.float64)
    # By the largest first: the sum of the largest numbers that there are is none.
    if not np.isfinite(parts).all() or (parts < 0).any() or not parts.max() > 0:
        raise ValueError("weights are finite, none of them negative, and at least one above zero")
    parts /= parts.max()
    shares: Doubles = parts / parts.sum()
    return shares


def _free(index: Index, codes: Int32s, taken: Int32s) -> Int32s:
    """The codes that are not taken, in their order."""
    free = np.ones(index.total_items, bool)
    free[taken] = False
    left: Int32s = codes[free[codes]]
    return left


def _behind(scores: Doubles, count: int) -> Doubles:
    """Scores for what only fills up: below the lowest of the candidates, and less with each place."""
    lowest = scores.min(axis=1, initial=1.0) if scores.shape[1] else np.zeros(len(scores))
    behind: Doubles = lowest[:, None] / (2 + np.arange(count))
    return behind


def _named(scores: Doubles, combined: Doubles) -> dict[str, Floats]:
    """As float32 in [0, 1]; rounding keeps the order."""
    rows: dict[str, Any] = {**dict(zip(TYPES, scores, strict=True)), COMBINED: combined}
    return {name: np.clip(row, 0, 1).astype(np.float32) for name, row in rows.items()}
