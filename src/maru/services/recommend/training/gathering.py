"""From blocks of a file to events in order, within a bound of memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maru.services.recommend.core.events import UNKNOWN, Events, Flags, Int8s, Int32s, Int64s, codes_of

IDLE_S = 1800
"""A visitor who did nothing for so long has begun a new session."""
COARSE_S = 3600
"""Where no moment is more exact than this, equal events are different ones."""
PEAK_BYTES = 300
"""What one event takes at most in a training: 67 were measured while it is read and put in order, 290 while an index
is made, in a shop with 34 events an item (docs/scale.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Events, and what a person should know of how they were read."""

    events: Events
    notes: tuple[str, ...] = ()


def fingerprint(events: Events) -> str:
    """The SHA-256 of events as they were understood: the same for the same events in another format."""
    shown = hashlib.sha256()
    for column in (events.session, events.aid, events.ts, events.type, events.catalogue, events.categories):
        if column is not None:
            shown.update(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).data)
    return shown.hexdigest()


class Gathering:
    """Collects blocks of events, of which it keeps the newest `most`; the blocks need not be in any order."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._blocks: list[tuple[Int64s, Int64s, Int64s, Int8s]] = []
        self._count = 0
        self._seen = 0

    def add(self, session: Int64s, aid: Int64s, ts_ms: Int64s, type: Int8s) -> None:
        """`aid` are item ids; `ts_ms` is in milliseconds, which order events within a second."""
        self._blocks.append((session, aid, ts_ms, type))
        self._count += len(session)
        self._seen += len(session)
        if self._most is not None and self._count > self._most + self._most // 4:
            self._drop_oldest(self._most)

    def finish(self, *, visitors: bool = False, categories: Mapping[int, int] | None = None) -> Reading:
        """All of them in order, none twice. Of `visitors` the session numbers are persons; their events are parted
        where they did nothing for half an hour, and the sessions numbered from 0. `categories` are by item id."""
        if self._most is not None and self._count > self._most:
            self._drop_oldest(self._most)
        notes = []
        if self._seen > self._count:
            notes.append(
                f"the newest {self._count:,} of {self._seen:,} events are used: more don't fit into the memory allowed"
            )
        columns = [self._column(number) for number in range(4)]
        self._blocks.clear()
        order = np.lexsort((columns[2], columns[0]))
        for number in range(4):  # one at a time, for the memory
            columns[number] = columns[number][order]
        del order
        session, aid, ts, type = columns
        columns.clear()
        if visitors:
            session = _parted(session, ts)
            notes.append(f"visitors are parted into sessions where they did nothing for {IDLE_S // 60} minutes")
        ts //= 1000
        if (again := _repeated(session, aid, ts, type)).any():
            notes.append(f"{int(again.sum()):,} events were there twice within a second and count once")
            session, aid, ts, type = (column[~again] for column in (session, aid, ts, type))
        catalogue, codes = np.unique(aid, return_inverse=True)
        known = _categories(catalogue, categories) if categories else None
        return Reading(Events(session, codes.astype(np.int32), ts, type, catalogue, known), tuple(notes))

    def _column(self, number: int) -> npt.NDArray[Any]:
        kind = np.int8 if number == 3 else np.int64
        return np.concatenate([np.zeros(0, kind), *(block[number] for block in self._blocks)])

    def _drop_oldest(self, most: int) -> None:
        """Keep the newest, and what is as old as the oldest of them."""
        times = self._column(2)
        oldest = np.partition(times, len(times) - most)[len(times) - most]
        del times
        for number, (session, aid, ts, type) in enumerate(self._blocks):
            kept = ts >= oldest
            self._blocks[number] = (session[kept], aid[kept], ts[kept], type[kept])
        self._count = sum(len(block[0]) for block in self._blocks)


def _parted(visitor: Int64s, ts_ms: Int64s) -> Int64s:
    begins = np.ones(len(visitor), bool)
    begins[1:] = (np.diff(visitor) != 0) | (np.diff(ts_ms) > IDLE_S * 1000)
    return np.cumsum(begins) - 1


def _repeated(session: Int64s, aid: Int64s, ts: Int64s, type: Int8s) -> Flags:
    """Which events are the same as one before them."""
    again = np.zeros(len(session), bool)
    if not (ts % COARSE_S).any():
        return again
    at_once = (session[1:] == session[:-1]) & (ts[1:] == ts[:-1])
    place = np.flatnonzero(np.append(at_once, False) | np.append(False, at_once))
    place = place[np.lexsort((type[place], aid[place], ts[place], session[place]))]
    equal = np.ones(max(0, len(place) - 1), bool)
    for column in (session, aid, ts, type):
        equal &= column[place[1:]] == column[place[:-1]]
    again[place[1:][equal]] = True
    return again


def _categories(catalogue: Int64s, categories: Mapping[int, int]) -> Int32s:
    aids = np.fromiter(categories, np.int64, len(categories))
    codes = codes_of(catalogue, aids)
    found = np.full(len(catalogue), UNKNOWN, np.int32)
    found[codes[codes >= 0]] = np.fromiter(categories.values(), np.int64, len(categories))[codes >= 0]
    return found
