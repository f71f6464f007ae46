"""What can be said of an item without looking at a session: how it sells, since when, and how that changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.covisitation import DAY_S
from maru.services.recommend.core.events import TYPES, UNKNOWN, Events, Floats, Int32s, Int64s
from maru.services.recommend.core.features import ITEM, POPULARITY, SHARES, STATS, TYPE_WEIGHTS, WINDOWS_D

HALF_LIFE_S = 3 * DAY_S
"""After which an event counts half for the popularity."""

Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Popularity:
    """`stats` float32 [items, 32]: the figures of `ITEM`, then the shares of all recent clicks, carts, orders.

    `seen` int64 [items, 2]: the first and the last second of each item. `rarity` float32 [items]: the logarithm of
    all sessions over the item's. `popular` int32 [items]: all items, the most popular first. `categories` int32
    [items], `UNKNOWN` where there is none. `by_category[starts[c]:starts[c + 1]]` int32: the items of the category
    `names[c]`, the most popular first.
    """

    stats: Floats
    seen: Int64s
    rarity: Floats
    popular: Int32s
    categories: Int32s
    names: Int32s
    starts: Int64s
    by_category: Int32s

    @classmethod
    def of(cls, events: Events) -> Popularity:
        items = len(events.catalogue)
        decayed = _decayed(events)
        score = decayed @ np.array(TYPE_WEIGHTS)
        popular = np.argsort(-score, kind="stable").astype(np.int32)
        categories = np.full(items, UNKNOWN, np.int32) if events.categories is None else events.categories
        names, places = np.unique(categories, return_inverse=True)
        starts = np.zeros(len(names) + 1, np.int64)
        np.cumsum(np.bincount(places, minlength=len(names)), out=starts[1:])
        by_category = np.lexsort((-score, places)).astype(np.int32)
        seen = np.empty((items, 2), np.int64)
        seen[:, 0], seen[:, 1] = events.ts.max(), events.ts.min()
        np.minimum.at(seen[:, 0], events.aid, events.ts)
        np.maximum.at(seen[:, 1], events.aid, events.ts)
        sessions = _sessions_of_items(events)
        stats = _stats(events, sessions, score)
        stats[:, SHARES : SHARES + len(TYPES)] = decayed / np.maximum(decayed.sum(axis=0), 1e-9)
        rarity = np.log(max(1, len(events.starts()) - 1) / np.maximum(1, sessions))
        return cls(stats, seen, rarity.astype(np.float32), popular, categories, names, starts, by_category)


def _decayed(events: Events) -> Figures:
    """[items, 3]: the events of each type, each counting less the older it is."""
    weights = np.exp2((events.ts - events.ts.max()) / HALF_LIFE_S)
    items = len(events.catalogue)
    return np.stack([np.bincount(events.aid, weights * (events.type == t), items) for t in range(len(TYPES))], axis=1)


def _sessions_of_items(events: Events) -> Figures:
    pairs = np.sort(
        np.repeat(np.arange(len(events.starts()) - 1), np.diff(events.starts())) * len(events.catalogue) + events.aid
    )
    first = np.ones(len(pairs), bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return np.bincount(pairs[first] % len(events.catalogue), minlength=len(events.catalogue)).astype(np.float64)


def _stats(events: Events, sessions: Figures, score: Figures) -> Floats:
    """float32 [items, 32]: the columns of `ITEM`."""
    items, last = len(events.catalogue), int(events.ts.max())

    def count(rows: NDArray[np.bool_]) -> Figures:
        return np.bincount(events.aid[rows], minlength=items).astype(np.float64)

    kinds = [events.type == kind for kind in range(len(TYPES))]
    recent = [[count(kind & (events.ts > last - days * DAY_S)) for days in WINDOWS_D] for kind in kinds]
    day, week, month = ([counts[at] for counts in recent] for at in (0, 2, 3))
    earlier = [count(kind & (events.ts <= last - DAY_S) & (events.ts > last - 2 * DAY_S)) for kind in kinds]
    total = np.maximum(1, np.bincount(events.aid, minlength=items))
    starts = events.starts()
    lengths = np.diff(starts)
    position = np.arange(len(events)) - np.repeat(starts[:-1], lengths)
    relative = position / np.maximum(1, np.repeat(lengths, lengths) - 1)
    ends = np.zeros(len(events), bool)
    ends[starts[1:] - 1] = True
    clicks = np.maximum(1, count(kinds[0]))
    columns = [
        *(np.log1p(window) for counts in recent for window in counts),
        month[1] / (month[0] + 1),
        month[2] / (month[0] + 1),
        month[2] / (month[1] + 1),
        *((day[kind] + 0.1) / (week[kind] / 7 + 0.1) for kind in range(len(TYPES))),
        np.log1p(sessions),
        np.log1p(total),
        np.log1p(score),
        total / np.maximum(1, sessions),
        np.bincount(events.aid, relative, items) / total,
        count(ends) / total,
        *(day[kind] - earlier[kind] for kind in range(len(TYPES))),
        np.bincount(events.aid, position * kinds[0], items) / clicks,
    ]
    assert len(columns) == len(ITEM) and ITEM[POPULARITY] == "popularity"
    stats = np.zeros((items, STATS), np.float32)
    stats[:, : len(ITEM)] = np.stack(columns, axis=1)
    return stats
