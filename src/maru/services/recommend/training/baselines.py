"""What a recommender has to beat: simple ways to recommend, each written down plainly and run one by one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.events import Events, Floats, Int32s, Int64s, codes_of
from maru.services.recommend.core.examples import Visit
from maru.services.recommend.training.outcomes import TOP

DAY = 86_400
RECENCY = 0.85
"""What an event of a session weighs beside the one after it."""


class Baseline(Protocol):
    def scores(self, seen: Int32s) -> tuple[Int32s, Floats]:
        """Items, as codes, and what each is worth to a session that has seen these, the last one last."""
        ...


def recommend(baseline: Baseline, events: Events, visit: Visit) -> Int64s:
    """The best new items for a visit, at most 20, as item ids."""
    seen = codes_of(events.catalogue, visit.aids)
    items, scores = baseline.scores(seen[seen >= 0])
    new = ~np.isin(items, seen)
    items, scores = items[new], scores[new]
    order = np.lexsort((items, -scores))[:TOP]
    return events.catalogue[items[order]]


class Popularity:
    """What most have clicked, carted and ordered lately: events count half after three days."""

    def __init__(self, events: Events) -> None:
        worth = np.array([1.0, 6.0, 3.0])[events.type] * 0.5 ** ((events.ts.max() - events.ts) / (3 * DAY))
        score = np.bincount(events.aid, worth, len(events.catalogue)).astype(np.float32)
        self._items = np.argsort(-score, kind="stable")[:1000].astype(np.int32)
        self._scores = score[self._items]

    def scores(self, seen: Int32s) -> tuple[Int32s, Floats]:
        return self._items, self._scores


class Covisitation:
    """What was most often seen within a day before or after each item of the session; the latest items weigh most.

    `neighbours` int32 [items, n] and `weights` float32 [items, n] as `core.covisitation` makes them.
    """

    def __init__(self, neighbours: Int32s, weights: Floats) -> None:
        self._neighbours = neighbours
        self._weights = weights

    def scores(self, seen: Int32s) -> tuple[Int32s, Floats]:
        recent = seen[-30:]
        near, weights = self._neighbours[recent], self._weights[recent]
        strongest = np.maximum(weights.max(axis=1, keepdims=True, initial=0), 1e-9)
        worth = weights / strongest * RECENCY ** np.arange(len(recent) - 1, -1, -1)[:, None]
        return _summed(near.ravel(), worth.ravel())


class SessionNeighbours:
    """V-SKNN (Ludewig and Jannach, 2018): what the 200 most similar of the recent sessions contain.

    Of each item the 1,000 latest sessions are looked at. The later an item in the session, the more it weighs.
    """

    SESSIONS, NEIGHBOURS, ITEMS = 1000, 200, 10

    def __init__(self, events: Events) -> None:
        starts = events.starts()
        session = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        pair = session * len(events.catalogue) + events.aid
        _, first = np.unique(pair, return_index=True)
        first.sort()
        self._items, of = events.aid[first], session[first]
        self._within = np.searchsorted(of, np.arange(len(starts)))
        ended = events.ts[starts[1:] - 1] if len(events) else np.zeros(0, np.int64)
        latest = np.lexsort((-ended[of], self._items))
        self._sessions = of[latest]
        self._of_item = np.searchsorted(self._items[latest], np.arange(len(events.catalogue) + 1))
        counts = np.bincount(self._items, minlength=len(events.catalogue))
        self._rarity = np.log(max(1, len(starts) - 1) / np.maximum(1, counts)).astype(np.float32)

    def scores(self, seen: Int32s) -> tuple[Int32s, Floats]:
        query = _last_of_each(seen)[-self.ITEMS :]
        if not len(query):
            return np.zeros(0, np.int32), np.zeros(0, np.float32)
        found = [self._latest(item) for item in query.tolist()]
        place = np.repeat(np.arange(len(query)), [len(sessions) for sessions in found])
        near, similarity = _summed(np.concatenate(found), ((place + 1) / len(query)).astype(np.float32))
        last = np.zeros(len(near), np.int64)
        np.maximum.at(last, np.searchsorted(near, np.concatenate(found)), place)
        best = np.argsort(-similarity, kind="stable")[: self.NEIGHBOURS]
        worth = similarity[best] * np.maximum(0, 1 - 0.1 * (len(query) - 1 - last[best]))
        begins, counts = self._within[near[best]], np.diff(self._within)[near[best]]
        rows = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        items = self._items[rows]
        return _summed(items, np.repeat(worth, counts).astype(np.float32) * (1 + self._rarity[items]))

    def _latest(self, item: int) -> Int64s:
        """The latest sessions that have the item."""
        begin, end = self._of_item[item], self._of_item[item + 1]
        sessions: Int64s = self._sessions[begin : min(end, begin + self.SESSIONS)]
        return sessions


def _last_of_each(seen: Int32s) -> Int32s:
    """Each item once, where it was last."""
    _, place = np.unique(seen[::-1], return_index=True)
    return seen[np.sort(len(seen) - 1 - place)]


def _summed(keys: NDArray[Any], worth: Floats) -> tuple[Int32s, Floats]:
    """The worth of each key that is not negative."""
    known = keys >= 0
    found, place = np.unique(keys[known], return_inverse=True)
    return found.astype(np.int32), np.bincount(place, worth[known], len(found)).astype(np.float32)
