"""Why an item is recommended: which sources gave it, and which of the session's items weighed most in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.embedding import DECAY
from maru.services.recommend.core.events import UNKNOWN
from maru.services.recommend.core.features import ABSENT, POPULAR, SESSIONS, SIMILAR, SOURCES
from maru.services.recommend.core.index import Index
from maru.services.recommend.core.kernel import Kernel, Proposed

CATEGORY = "same_category"
"""The name of what only fills up, where it has the category of one of the session's items."""


@dataclass(frozen=True, slots=True)
class Source:
    """What brought an item up: one of `SOURCES`, or `CATEGORY`; at which place of its list (1 is the first; 0 when it
    is only there to fill up), and which of the session's items weighed most in it (None for what is popular)."""

    name: str
    rank: int
    aid: int | None


class Explainer:
    """Of one answer. To be asked before its kernel is given the next query."""

    def __init__(self, index: Index, kernel: Kernel, proposed: Proposed, items: NDArray[np.int32]) -> None:
        """`items` are the distinct items of the session, the one seen last first."""
        self._index = index
        self._items = items
        self._decay = DECAY ** np.arange(len(items))
        self._ranks = {int(code): proposed.ranks[at] for at, code in enumerate(proposed.codes)}
        self._peers = _flat(index, kernel)

    def sources(self, code: int) -> list[Source]:
        """The sources of an item, the one that put it highest first."""
        ranks = self._ranks.get(code)
        given = [] if ranks is None else [place for place in np.argsort(ranks, kind="stable") if ranks[place] != ABSENT]
        if ranks is None or not given:
            return [self._filling(code)]
        return [Source(SOURCES[place], int(ranks[place]) + 1, self._because(code, int(place))) for place in given]

    def _filling(self, code: int) -> Source:
        categories = self._index.arrays.categories
        alike = np.flatnonzero(categories[self._items] == categories[code])
        if categories[code] != UNKNOWN and alike.size:
            return Source(CATEGORY, 0, self._aid(int(alike[0])))
        return Source(SOURCES[POPULAR], 0, None)

    def _because(self, code: int, source: int) -> int | None:
        arrays = self._index.arrays
        if source == POPULAR:
            return None
        if source == SESSIONS:
            weights, matches, items = self._peers
            shares = np.bincount(matches, weights * (items == code), len(self._items))
        elif source == SIMILAR:
            shares = self._decay * (arrays.embedding[self._items] @ arrays.embedding[code])
        else:
            met = arrays.partners[self._items, source] == code
            shares = self._decay * (arrays.weights[self._items, source] * met).sum(axis=1)
        return self._aid(int(np.argmax(shares)))

    def _aid(self, place: int) -> int:
        return int(self._index.arrays.catalogue[self._items[place]])


def _flat(index: Index, kernel: Kernel) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """The items of all sessions like this one, with the weight of each and which item of this session it shares."""
    found, starts = kernel.scratch.peers, index.arrays.session_starts
    peers = found.session[found.session >= 0]
    lengths = starts[peers + 1] - starts[peers]
    items = [index.arrays.session_items[starts[peer] : starts[peer + 1]] for peer in peers]
    return (
        np.repeat(found.weight[: len(peers)], lengths),
        np.repeat(found.match[: len(peers)], lengths),
        np.concatenate(items) if items else np.zeros(0, np.int32),
    )
