"""Sessions as others may be compared to them: their distinct items, and the latest sessions of each item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.covisitation import DAY_S
from maru.services.recommend.core.events import Events, Floats, Int32s, Int64s
from maru.services.recommend.core.features import RECENT

SAMPLE = 500
"""How many sessions of an item are remembered: the latest."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions, the one that ended last first.

    `ids` int64 [sessions]: the caller's ids. `by_id` int32: their places, ordered by id. `items[starts[i]:
    starts[i + 1]]` int32: the last distinct items of session i, 30 at most, the one seen last first. `freshness`
    float32 [sessions]: 1 at the end of the events, a half a week before. `of_item[item_starts[a]:item_starts[a + 1]]`
    int32: the sessions of item a, the latest first.
    """

    ids: Int64s
    by_id: Int32s
    starts: Int64s
    items: Int32s
    freshness: Floats
    item_starts: Int64s
    of_item: Int32s

    @classmethod
    def of(cls, events: Events) -> Sessions:
        starts = events.starts()
        ids, ends = events.session[starts[:-1]], events.ts[starts[1:] - 1]
        order = np.lexsort((ids, -ends))
        catalogue = len(events.catalogue)
        items = np.empty(len(events), np.int32)
        kept_starts = np.zeros(len(ids) + 1, np.int64)
        _distinct(events.aid, starts, order, np.full(catalogue, -1, np.int64), kept_starts, items)
        items = items[: kept_starts[-1]].copy()
        counts = np.minimum(np.bincount(items, minlength=catalogue), SAMPLE)
        item_starts = np.zeros(catalogue + 1, np.int64)
        np.cumsum(counts, out=item_starts[1:])
        of_item = np.empty(item_starts[-1], np.int32)
        _inverted(items, kept_starts, item_starts, np.zeros(catalogue, np.int64), of_item)
        weeks = (ends[order].max() - ends[order]) / (7 * DAY_S)
        ids = ids[order]
        by_id = np.argsort(ids, kind="stable").astype(np.int32)
        return cls(ids, by_id, kept_starts, items, np.exp2(-weeks).astype(np.float32), item_starts, of_item)


@compiled
def _distinct(aid: Int32s, starts: Int64s, order: Int64s, mark: Int64s, kept_starts: Int64s, items: Int32s) -> None:
    at = 0
    for place in range(order.size):
        session = order[place]
        for e in range(starts[session + 1] - 1, starts[session] - 1, -1):
            if mark[aid[e]] != session:
                mark[aid[e]] = session
                items[at] = aid[e]
                at += 1
                if at - kept_starts[place] == RECENT:
                    break
        kept_starts[place + 1] = at


@compiled
def _inverted(items: Int32s, starts: Int64s, item_starts: Int64s, filled: Int64s, of_item: Int32s) -> None:
    for session in range(starts.size - 1):
        for q in range(starts[session], starts[session + 1]):
            item = items[q]
            at = item_starts[item] + filled[item]
            if at < item_starts[item + 1]:
                of_item[at] = session
                filled[item] += 1
