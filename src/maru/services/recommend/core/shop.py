"""The arrays that the compiled functions are given: what was learned, and where they work."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from maru.services.recommend.core.events import Floats, Int8s, Int32s, Int64s
from maru.services.recommend.core.features import CANDIDATES, DIMENSIONS, FEATURE_NAMES, POOL, RECENT, SOURCES
from maru.services.recommend.core.nearest import PROBES

NEIGHBOURS = 200
"""How many sessions like the one at hand are asked for their items."""

FOUND = 64
"""How many items the search by bytes gives, to be ordered by their exact vectors."""


FREE, BARRED = -1, -2
"""What `Tally.slot` says of an item that is no candidate, and of one that must not become one."""


class Shop(NamedTuple):
    """Of the index, what finding and describing candidates needs. Read only. See the modules that make each part."""

    partners: Int32s
    """[items, 4, 50], by `KINDS`; -1 behind the last."""
    weights: Floats
    """[items, 4, 50]: below 1, relative to the strongest of the item and kind."""
    embedding: Floats
    centres: Floats
    list_starts: Int64s
    list_items: Int32s
    list_small: Int8s
    list_scales: Floats
    stats: Floats
    seen: Int64s
    rarity: Floats
    popular: Int32s
    categories: Int32s
    session_starts: Int64s
    session_items: Int32s
    freshness: Floats
    item_starts: Int64s
    item_sessions: Int32s


class Tally(NamedTuple):
    """Where the weights of items are added up and the heaviest are taken. Between sources `weight` is zero, between
    queries `slot` is `FREE`."""

    weight: Floats
    """[items]"""
    touched: Int32s
    slot: Int32s
    """[items]: a candidate's place in the pool, or `FREE`, or `BARRED`."""
    top: Int32s


class Pool(NamedTuple):
    """The candidates. After the fusion the first 100 are those kept, best first."""

    items: Int32s
    """[256]"""
    ranks: Int32s
    """[256, 7]: their ranks in the sources, `ABSENT` for none."""
    fused: Floats
    moved: Int32s


class Peers(NamedTuple):
    """Sessions like the one at hand. Between queries `likeness` is zero."""

    likeness: Floats
    """[sessions]"""
    met: Int32s
    session: Int32s
    """[200]: the most like it, -1 behind the last."""
    weight: Floats
    match: Int32s
    """Which of the session's recent items a peer has, the first of them."""


class Scratch(NamedTuple):
    """Where one query at a time is worked on."""

    tally: Tally
    pool: Pool
    peers: Peers
    list_weight: Floats
    """[lists]"""
    lists: Int32s
    features: Floats
    """[100, 256]"""
    vectors: Floats
    """[3, 128]: of the session, by recency, plain, and by types."""
    recent: Int32s
    """[30]: the session's distinct items, the one seen last first."""

    @classmethod
    def of(cls, shop: Shop) -> Scratch:
        items, sessions, lists = len(shop.popular), len(shop.freshness), len(shop.centres)
        return cls(
            Tally(
                np.zeros(items, np.float32),
                np.empty(items, np.int32),
                np.full(items, -1, np.int32),
                np.empty(max(POOL, NEIGHBOURS, FOUND, PROBES), np.int32),
            ),
            Pool(
                np.empty(POOL, np.int32),
                np.empty((POOL, len(SOURCES)), np.int32),
                np.empty(POOL, np.float32),
                np.empty((CANDIDATES, len(SOURCES)), np.int32),
            ),
            Peers(
                np.zeros(sessions, np.float32),
                np.empty(sessions, np.int32),
                np.full(NEIGHBOURS, -1, np.int32),
                np.zeros(NEIGHBOURS, np.float32),
                np.zeros(NEIGHBOURS, np.int32),
            ),
            np.zeros(lists, np.float32),
            np.arange(lists, dtype=np.int32),
            np.zeros((CANDIDATES, len(FEATURE_NAMES)), np.float32),
            np.zeros((3, DIMENSIONS), np.float32),
            np.empty(RECENT, np.int32),
        )
