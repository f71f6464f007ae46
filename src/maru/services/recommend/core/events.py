"""What visitors did: the one form in which events reach the index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Int8s = NDArray[np.int8]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

TYPES = ("clicks", "carts", "orders")
"""By the number that stands for each in `Events.type`; also the three objectives, in that order."""

UNKNOWN = -1
"""The code of an item, and the category of an item, of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one catalogue, those of a session adjacent and in the order of time.

    `session` int64: the caller's own session ids, ascending. `aid` int32: codes, places in `catalogue`. `ts` int64:
    seconds. `type` int8: places in `TYPES`. `catalogue` int64: the caller's own item ids, ascending, each once.
    `categories` int32, one an item of the catalogue, `UNKNOWN` where there is none; or None for a shop without.
    """

    session: Int64s
    aid: Int32s
    ts: Int64s
    type: Int8s
    catalogue: Int64s
    categories: Int32s | None = None

    @classmethod
    def of(
        cls,
        session: ArrayLike,
        aid: ArrayLike,
        ts: ArrayLike,
        type: ArrayLike,
        *,
        categories: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Events:
        """From columns in any order, `aid` being item ids. Events of a session in one second keep their order.

        `categories` are two columns, item ids and the category of each; for an item named twice the last holds.
        The catalogue is the items of the events. ValueError when the columns are of unequal length, or a type is
        not 0, 1 or 2.
        """
        sessions, aids = np.asarray(session, np.int64), np.asarray(aid, np.int64)
        times, types = np.asarray(ts, np.int64), np.asarray(type, np.int64)
        if not len(sessions) == len(aids) == len(times) == len(types):
            raise ValueError("the columns of events are of unequal length")
        if len(types) and not (types.min() >= 0 and types.max() < len(TYPES)):
            raise ValueError(f"an event's type is not one of 0 to {len(TYPES) - 1}")
        order = np.lexsort((times, sessions))
        catalogue, codes = np.unique(aids[order], return_inverse=True)
        return cls(
            sessions[order],
            codes.astype(np.int32),
            times[order],
            types[order].astype(np.int8),
            catalogue,
            None if categories is None else _categories(catalogue, *categories),
        )

    def __len__(self) -> int:
        return len(self.session)

    def starts(self) -> Int64s:
        """int64 [sessions + 1]: the events of the i-th session are the rows from starts[i] to starts[i + 1]."""
        changes = np.flatnonzero(self.session[1:] != self.session[:-1]) + 1
        edges = ([0], changes, [len(self)]) if len(self) else ([0],)
        return np.concatenate(edges).astype(np.int64)

    def select(self, rows: Flags) -> Events:
        """The events of those rows alone, with a catalogue of the items that are left."""
        kept, codes = np.unique(self.aid[rows], return_inverse=True)
        return Events(
            self.session[rows],
            codes.astype(np.int32),
            self.ts[rows],
            self.type[rows],
            self.catalogue[kept],
            None if self.categories is None else self.categories[kept],
        )

    def before(self, ts: int) -> Events:
        """What was known at that second: the events before it, and no item that first appeared later."""
        return self.select(self.ts < ts)


def codes_of(catalogue: Int64s, aids: ArrayLike) -> Int32s:
    """The places in an ascending catalogue of those item ids; int32, `UNKNOWN` for an id that it doesn't hold."""
    wanted = np.asarray(aids, np.int64)
    if not len(catalogue):
        return np.full(wanted.shape, UNKNOWN, np.int32)
    places = np.minimum(np.searchsorted(catalogue, wanted), len(catalogue) - 1)
    return np.where(catalogue[places] == wanted, places, UNKNOWN).astype(np.int32)


def _categories(catalogue: Int64s, aids: ArrayLike, categories: ArrayLike) -> Int32s:
    found: NDArray[Any] = codes_of(catalogue, aids)
    told = np.asarray(categories, np.int64)
    if len(told) != len(found):
        raise ValueError("the columns of categories are of unequal length")
    if len(told) and not (told.min() >= 0 and told.max() <= np.iinfo(np.int32).max):
        raise ValueError("a category is not a number from 0 to 2147483647")
    known = found != UNKNOWN
    result = np.full(len(catalogue), UNKNOWN, np.int32)
    result[found[known]] = told[known]
    return result
