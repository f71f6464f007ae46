"""Candidates and their features for one session at a time, all in one compiled call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maru.services.recommend.core.candidates import fuse, gather, recent_items, release
from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.describing import describe
from maru.services.recommend.core.events import Floats, Int8s, Int32s, Int64s
from maru.services.recommend.core.features import CANDIDATES, RECENT
from maru.services.recommend.core.index import Index
from maru.services.recommend.core.shop import BARRED, FREE, Scratch, Shop

_SECONDS = 2**40
"""Beyond any date: differences of such numbers still fit."""


@dataclass(frozen=True, slots=True)
class History:
    """The last known events of a session, oldest first, 30 at most: int32 codes, int64 seconds, int8 types."""

    codes: Int32s
    ts: Int64s
    types: Int8s

    @classmethod
    def of(cls, codes: Int32s, ts: Int64s, types: Int8s) -> History:
        """From a session's events in any order, with -1 for the code of an unknown item."""
        known = np.flatnonzero(codes >= 0)
        latest = known[np.argsort(ts[known], kind="stable")][-RECENT:]
        seconds = np.clip(ts[latest], 0, _SECONDS).astype(np.int64)
        return cls(codes[latest].astype(np.int32), seconds, types[latest].astype(np.int8))

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, slots=True)
class Proposed:
    """The candidates, best of the fused order first. All are views, and hold until the next call.

    `codes` int32 [m], m at most 100; `ranks` int32 [m, 7] by `SOURCES`, 0 the first, `ABSENT` for a source that did
    not give it; `features` float32 [m, 256]; `vector` float32 [128], the session's.
    """

    codes: Int32s
    ranks: Int32s
    features: Floats
    vector: Floats


class Kernel:
    """A place to work on one query at a time, over the arrays of an index. Not for two threads at once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.scratch = Scratch.of(index.shop)

    def propose(self, history: History, barred: Int32s, allowed: Int32s | None = None) -> Proposed:
        """The candidates for a history of one event at least: none of its items, none of the codes `barred`, and,
        when there are any `allowed`, only of those.

        Where the sources give fewer than are ranked, the first of those allowed fill them up, or the most popular of
        the category that was looked at last.
        """
        scratch, tally, pool = self.scratch, self.scratch.tally, self.scratch.pool
        if allowed is not None:
            tally.slot.fill(BARRED)
            tally.slot[allowed] = FREE
        filling = self._index.in_category_of(history.codes[-1]) if allowed is None else allowed
        # Copied, as an array that may not be written to would be another type, and compiled for anew.
        forced = np.array(filling[: CANDIDATES + len(barred) + RECENT], np.int32)
        seen = (history.codes, history.ts, history.types)
        count = _propose(self._index.shop, scratch, *seen, barred, forced, self._index.latest)
        if allowed is not None:
            tally.slot.fill(FREE)
        return Proposed(pool.items[:count], pool.ranks[:count], scratch.features[:count], scratch.vectors[0])


@compiled
def _propose(
    shop: Shop,
    scratch: Scratch,
    codes: Int32s,
    ts: Int64s,
    types: Int8s,
    barred: Int32s,
    forced: Int32s,
    latest: int,
) -> int:
    distinct = recent_items(codes, scratch.recent)
    found = gather(shop, scratch, codes, types, distinct, barred, forced)
    count = fuse(scratch.tally, scratch.pool, found)
    describe(shop, scratch, codes, ts, types, count, distinct, latest)
    release(scratch.tally, scratch.pool, count, scratch.recent, distinct, barred)
    return count
