"""Which items are met in the same sessions. No table of pairs is ever made: an item's partners are added up in one
array over the catalogue, the strongest are kept, and the array is cleared for the next item."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.events import Events, Floats, Int8s, Int32s, Int64s
from maru.services.recommend.core.features import KINDS, TYPE_WEIGHTS
from maru.services.recommend.core.selection import strongest

VIEWED, TYPED, BOUGHT, NEXT = range(4)
"""Items met with an item, the later the more; the same, by what was done with them; bought with it; met after it,
the sooner the more."""

DAY_S = 86_400

_TYPE_WEIGHTS = np.array(TYPE_WEIGHTS, np.float32)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far partners may be from each other: in events of the session, and in seconds."""

    events: int
    seconds: int


REACH = {
    VIEWED: Reach(30, DAY_S),
    TYPED: Reach(30, DAY_S),
    BOUGHT: Reach(30, 14 * DAY_S),
    NEXT: Reach(15, DAY_S),
}


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Events with two ways in: `starts` int64 [sessions + 1] are the rows of each session, `session` int32 [rows] the
    number of each row's session; `rows[item_starts[i]:item_starts[i + 1]]` are the rows of item i, in order."""

    events: Events
    starts: Int64s
    session: Int32s
    rows: Int64s
    item_starts: Int64s

    @classmethod
    def of(cls, events: Events) -> Occurrences:
        starts = events.starts()
        session = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
        item_starts = np.zeros(len(events.catalogue) + 1, np.int64)
        np.cumsum(np.bincount(events.aid, minlength=len(events.catalogue)), out=item_starts[1:])
        return cls(events, starts, session, np.argsort(events.aid, kind="stable"), item_starts)


Pairs = tuple[Int32s, Floats]
"""The partners of a range of items: int32 [items, keep], strongest first and -1 behind the last, and their weights,
float32, all above zero."""

Covisit = Callable[[Occurrences, int, int], Pairs]
"""Given the events, the kind and how many partners to keep, those of the whole catalogue."""


def partners(
    occurrences: Occurrences, kind: int, start: int, stop: int, keep: int, reach: Reach | None = None
) -> Pairs:
    """Of the items from `start` to `stop`. The same bits whichever range an item is computed in.

    It needs 8 bytes for each item of the catalogue, beside its answer.
    """
    events, reach = occurrences.events, reach or REACH[kind]
    ids = np.full((stop - start, keep), -1, np.int32)
    weights = np.zeros((stop - start, keep), np.float32)
    if len(events):
        first, last = int(events.ts.min()), int(events.ts.max())
        _partners(
            events.aid, events.ts, events.type, occurrences.session, occurrences.starts, occurrences.rows,
            occurrences.item_starts, start, kind, reach.events, reach.seconds, first, max(1, last - first),
            _TYPE_WEIGHTS, ids, weights,
        )  # fmt: skip
    return ids, weights


def in_threads(threads: int, told: Callable[[str, float], None] | None = None, reach: Reach | None = None) -> Covisit:
    """Co-visitation on this machine, in so many threads; `told` hears which part of a kind is done."""

    def covisit(occurrences: Occurrences, kind: int, keep: int) -> Pairs:
        items = len(occurrences.events.catalogue)
        # Small ranges, as a few popular items are most of the work.
        step = max(64, items // (threads * 16) + 1)
        ids, weights = np.empty((items, keep), np.int32), np.empty((items, keep), np.float32)
        done = 0

        def run(start: int) -> None:
            stop = min(start + step, items)
            ids[start:stop], weights[start:stop] = partners(occurrences, kind, start, stop, keep, reach)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(run, range(0, items, step)):
                done += step
                if told is not None:
                    told(f"co-visitation, {KINDS[kind]}", min(1.0, done / items))
        return ids, weights

    return covisit


@compiled
def _partners(
    aid: Int32s,
    ts: Int64s,
    type: Int8s,
    session: Int32s,
    starts: Int64s,
    rows: Int64s,
    item_starts: Int64s,
    first_item: int,
    kind: int,
    window: int,
    horizon: int,
    first_ts: int,
    span: int,
    type_weights: Floats,
    ids: Int32s,
    weights: Floats,
) -> None:
    items = item_starts.size - 1
    total = np.zeros(items, np.float32)
    touched = np.empty(items, np.int32)
    for place in range(ids.shape[0]):
        item = first_item + place
        count = 0
        for o in range(item_starts[item], item_starts[item + 1]):
            e = rows[o]
            if kind == BOUGHT and type[e] == 0:
                continue
            low = e + 1 if kind == NEXT else max(starts[session[e]], e - window)
            high = min(starts[session[e] + 1], e + window + 1)
            late = (ts[e] - first_ts) / span
            for q in range(low, high):
                other = aid[q]
                if other == item or abs(ts[q] - ts[e]) > horizon or (kind == BOUGHT and type[q] == 0):
                    continue
                if kind == VIEWED:
                    weight = 1.0 + 3.0 * late
                elif kind == TYPED:
                    weight = float(type_weights[type[q]])
                elif kind == BOUGHT:
                    weight = 1.0
                else:
                    weight = (1.0 + late) / (q - e)
                if total[other] == 0.0:
                    touched[count] = other
                    count += 1
                total[other] += np.float32(weight)
        kept = strongest(total, touched, count, ids.shape[1], ids[place])
        for k in range(kept):
            weights[place, k] = total[ids[place, k]]
        for i in range(count):
            total[touched[i]] = 0.0
