"""The 256 figures of each candidate of a session, in the order of `FEATURE_NAMES`."""

from __future__ import annotations

import math

import numpy as np

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.covisitation import DAY_S
from maru.services.recommend.core.embedding import DECAY, product
from maru.services.recommend.core.events import Floats, Int8s, Int32s, Int64s
from maru.services.recommend.core.features import (
    ABSENT,
    AT_AGES,
    AT_BESIDE,
    AT_FUSION,
    AT_ITEM,
    AT_SESSION,
    AT_SESSIONS,
    AT_SIMILAR,
    DIMENSIONS,
    ITEM,
    KINDS,
    NAMED,
    PER_KIND,
    POPULAR,
    POPULARITY,
    SESSION,
    SESSIONS,
    SIMILAR,
    SOURCES,
    TYPE_WEIGHTS,
)
from maru.services.recommend.core.shop import Peers, Pool, Scratch, Shop

NEAR = 8
"""How many of the last events a candidate is compared to one by one."""

FRESH_S = 7 * DAY_S
"""By how much an index is taken to be behind a session, at most: older than this it has only ever been in service."""

_TYPE_WEIGHTS = TYPE_WEIGHTS
_FIGURES = len(ITEM)
_SESSION_FIGURES = len(SESSION)
_NAMED = len(NAMED)
_HOUR_S = 3_600
_KINDS, _SOURCES = len(KINDS), len(SOURCES)


@compiled
def describe(
    shop: Shop, scratch: Scratch, codes: Int32s, ts: Int64s, types: Int8s, count: int, distinct: int, latest: int
) -> None:
    """Fill `Scratch.features` for the candidates of the pool, which have their slots. `latest` is the last second of
    the index's events."""
    tally, pool, features = scratch.tally, scratch.pool, scratch.features
    for c in range(count):
        for f in range(_NAMED):
            features[c, f] = 0.0
    for kind in range(_KINDS):
        _partners(shop.partners, shop.weights, tally.slot, pool.ranks, codes, types, count, kind, features)
    _vectors(shop.embedding, pool, scratch.vectors, codes, types, count, features)
    _peers(
        shop.session_starts, shop.session_items, shop.rarity, shop.freshness,
        tally.slot, pool.ranks, scratch.peers, scratch.recent, count, features,
    )  # fmt: skip
    now = min(max(ts[ts.size - 1], latest), latest + FRESH_S)
    _items(shop.stats, shop.seen, pool, count, now, features)
    if count > 0:
        row = features[0, AT_SESSION : AT_SESSION + _SESSION_FIGURES]
        _session(shop.stats, shop.embedding, codes, ts, types, distinct, row)
        _spread(features, count)
    _fusion(pool, count, features)
    _categories(shop.categories, pool.items, codes, count, features)


@compiled
def _partners(
    partners: Int32s,
    weights: Floats,
    slot: Int32s,
    ranks: Int32s,
    codes: Int32s,
    types: Int8s,
    count: int,
    kind: int,
    features: Floats,
) -> None:
    at = kind * PER_KIND
    for c in range(count):
        features[c, at + 6] = ABSENT
    total = np.float32(0.0)
    recency = 1.0
    for p in range(codes.size - 1, -1, -1):
        for k in range(partners.shape[2]):
            item = partners[codes[p], kind, k]
            if item < 0:
                break
            c = slot[item]
            if c < 0:
                continue
            weight = weights[codes[p], kind, k]
            recent = weight * np.float32(recency)
            total += recent
            features[c, at] += weight
            features[c, at + 1] += recent
            features[c, at + 2] += recent * np.float32(_TYPE_WEIGHTS[types[p]])
            features[c, at + 3] = max(features[c, at + 3], weight)
            if p == codes.size - 1:
                features[c, at + 4] = weight
            features[c, at + 5] += np.float32(1.0)
            features[c, at + 6] = min(features[c, at + 6], np.float32(k))
            if types[p] > 0:
                features[c, at + 7] += weight
        recency *= DECAY
    for c in range(count):
        features[c, at + 8] = ranks[c, kind]
        features[c, at + 9] = features[c, at + 1] / max(total, np.float32(1e-9))


@compiled
def _vectors(
    embedding: Floats, pool: Pool, vectors: Floats, codes: Int32s, types: Int8s, count: int, features: Floats
) -> None:
    last = codes.size - 1
    bought = -1
    for p in range(codes.size):
        if types[p] > 0:
            bought = codes[p]
    near = min(codes.size, NEAR)
    for c in range(count):
        vector = embedding[pool.items[c]]
        row = features[c]
        for v in range(3):
            row[AT_SIMILAR + v] = product(vectors[v], vector)
        row[AT_SIMILAR + 3] = product(embedding[codes[last]], vector)
        if bought >= 0:
            row[AT_SIMILAR + 4] = product(embedding[bought], vector)
        most, least, total = row[AT_SIMILAR + 3], row[AT_SIMILAR + 3], row[AT_SIMILAR + 3]
        for q in range(1, near):
            likeness = np.float32(product(embedding[codes[last - q]], vector))
            total += likeness
            most = max(most, likeness)
            least = min(least, likeness)
        row[AT_SIMILAR + 5] = most
        row[AT_SIMILAR + 6] = total / np.float32(near)
        row[AT_SIMILAR + 7] = least
        row[AT_SIMILAR + 8] = pool.ranks[c, SIMILAR]
        for d in range(DIMENSIONS):
            row[_NAMED + d] = vectors[0, d] * vector[d]


@compiled
def _peers(
    session_starts: Int64s,
    session_items: Int32s,
    rarity: Floats,
    freshness: Floats,
    slot: Int32s,
    ranks: Int32s,
    peers: Peers,
    recent: Int32s,
    count: int,
    features: Floats,
) -> None:
    for i in range(peers.session.size):
        session = peers.session[i]
        if session < 0:
            break
        weight = peers.weight[i]
        matched = recent[peers.match[i]]
        start, stop = session_starts[session], session_starts[session + 1]
        # The item seen last comes first: what stands before the match was seen after it.
        place = stop
        for q in range(start, stop):
            if session_items[q] == matched:
                place = q
                break
        for q in range(start, stop):
            c = slot[session_items[q]]
            if c < 0:
                continue
            features[c, AT_SESSIONS] += weight * np.float32(1.0 + rarity[session_items[q]])
            features[c, AT_SESSIONS + 3] += np.float32(1.0)
            features[c, AT_SESSIONS + 4] += weight * freshness[session]
            if q < place:
                features[c, AT_SESSIONS + 5] += weight / np.float32(place - q)
    most = np.float32(1e-9)
    for c in range(count):
        most = max(most, features[c, AT_SESSIONS])
    for c in range(count):
        features[c, AT_SESSIONS + 1] = features[c, AT_SESSIONS] / most
        features[c, AT_SESSIONS + 2] = ranks[c, SESSIONS]


@compiled
def _items(stats: Floats, seen: Int64s, pool: Pool, count: int, now: int, features: Floats) -> None:
    for c in range(count):
        item = pool.items[c]
        for f in range(_FIGURES):
            features[c, AT_ITEM + f] = stats[item, f]
        features[c, AT_AGES] = math.log1p(max(0, now - seen[item, 1]))
        features[c, AT_AGES + 1] = math.log1p(max(0, now - seen[item, 0]))
        features[c, AT_AGES + 2] = pool.ranks[c, POPULAR]


@compiled
def _session(
    stats: Floats, embedding: Floats, codes: Int32s, ts: Int64s, types: Int8s, distinct: int, row: Floats
) -> None:
    n, last = codes.size, codes.size - 1
    row[0] = n
    row[1] = distinct
    popularity, most, least = np.float32(0.0), np.float32(-1.0), np.float32(1e9)
    coherence = np.float32(0.0)
    for p in range(n):
        row[2 + types[p]] += np.float32(1.0)
        figure = stats[codes[p], POPULARITY]
        popularity += figure
        most, least = max(most, figure), min(least, figure)
        if p > 0:
            coherence += np.float32(product(embedding[codes[p]], embedding[codes[p - 1]]))
        if codes[p] == codes[last]:
            row[11] += np.float32(1.0)
        age = ts[last] - ts[p]
        row[22] += np.float32(age < 600)
        row[23] += np.float32(age < _HOUR_S)
        row[24] += np.float32(age < DAY_S)
    for kind in range(3):
        row[5 + kind] = row[2 + kind] / n
    duration = ts[last] - ts[0]
    row[8] = math.log1p(duration)
    row[9] = math.log1p(ts[last] - ts[last - 1]) if n > 1 else 0.0
    row[10] = duration / max(1, last)
    row[12 + types[last]] = 1.0
    hour = 2 * math.pi * (ts[last] % DAY_S) / DAY_S
    day = 2 * math.pi * ((ts[last] // DAY_S) % 7) / 7
    row[15] = math.sin(hour)
    row[16] = math.cos(hour)
    row[17] = math.sin(day)
    row[18] = math.cos(day)
    row[19] = popularity / np.float32(n)
    row[20] = most
    row[21] = least
    row[25] = coherence / np.float32(max(1, last))
    row[26] = distinct / n


@compiled
def _spread(features: Floats, count: int) -> None:
    """Give all candidates the session's figures, and compare their popularity to that of its items."""
    for c in range(count):
        for f in range(AT_SESSION, AT_SESSION + _SESSION_FIGURES):
            features[c, f] = features[0, f]
        features[c, AT_BESIDE] = features[c, AT_ITEM + POPULARITY] - features[0, AT_SESSION + 19]


@compiled
def _fusion(pool: Pool, count: int, features: Floats) -> None:
    for c in range(count):
        row = features[c]
        best, mean, square = ABSENT, 0.0, 0.0
        for source in range(_SOURCES):
            rank = pool.ranks[c, source]
            if rank != ABSENT:
                row[AT_FUSION + source] = 1.0
                row[AT_FUSION + _SOURCES] += np.float32(1.0)
                best = min(best, rank)
            capped = min(rank, 200)
            mean += capped / _SOURCES
            square += capped * capped / _SOURCES
        row[AT_FUSION + _SOURCES + 1] = best
        row[AT_FUSION + _SOURCES + 2] = pool.fused[c]
        row[AT_FUSION + _SOURCES + 3] = mean
        row[AT_FUSION + _SOURCES + 4] = math.sqrt(max(0.0, square - mean * mean))


@compiled
def _categories(categories: Int32s, items: Int32s, codes: Int32s, count: int, features: Floats) -> None:
    last = categories[codes[codes.size - 1]]
    for c in range(count):
        category = categories[items[c]]
        if category < 0:
            continue
        row = features[c]
        row[AT_BESIDE + 1] = np.float32(category == last)
        share, total, weight = 0.0, 0.0, 1.0
        for p in range(codes.size - 1, -1, -1):
            total += weight
            if categories[codes[p]] == category:
                share += weight
            weight *= DECAY
        row[AT_BESIDE + 2] = share / total
