"""Where a session's candidates come from: seven sources, each with its own order, and one order made of all."""

from __future__ import annotations

import numpy as np

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.embedding import DECAY, product, session_vector, small_product, unit
from maru.services.recommend.core.events import Floats, Int8s, Int32s, Int64s
from maru.services.recommend.core.features import (
    ABSENT,
    CANDIDATES,
    DEPTHS,
    KINDS,
    POOL,
    POPULAR,
    SESSIONS,
    SIMILAR,
    SOURCES,
    TYPE_WEIGHTS,
)
from maru.services.recommend.core.nearest import PROBES
from maru.services.recommend.core.peers import COMPARED, choose_peers, compare
from maru.services.recommend.core.selection import strongest
from maru.services.recommend.core.shop import BARRED, FOUND, FREE, Peers, Pool, Scratch, Shop, Tally

RRF = 60.0
"""What is added to each rank before it is turned over: the larger, the less the first places count."""

_TYPE_WEIGHTS = TYPE_WEIGHTS
_TYPED = 1
_KINDS, _SOURCES = len(KINDS), len(SOURCES)

# Not Python's own numbers: a function that is called with a literal is compiled for that literal alone.
_NOTHING, _SIMILAR, _SESSIONS, _POPULAR = np.array([0, SIMILAR, SESSIONS, POPULAR], np.int64)
_KEPT, _SEARCHED, _FOUND = np.array([CANDIDATES, PROBES, FOUND], np.int64)
_DEPTHS = np.array(DEPTHS, np.int64)


@compiled
def gather(
    shop: Shop, scratch: Scratch, codes: Int32s, types: Int8s, distinct: int, barred: Int32s, forced: Int32s
) -> int:
    """Fill `Scratch.pool` from all sources, and then from `forced` as long as there are fewer than are ranked. Gives
    how many there are. `codes` are the events' items, oldest first, one at least; `Scratch.recent` holds the
    `distinct` ones.

    `Tally.slot` is left as it is: `release` must follow.
    """
    tally, pool, peers, recent = scratch.tally, scratch.pool, scratch.peers, scratch.recent
    _bar(tally.slot, recent, distinct)
    _bar(tally.slot, barred, barred.size)
    _session_vectors(shop.embedding, codes, types, recent, distinct, scratch.vectors)
    count = _NOTHING
    for kind in range(_KINDS):
        found = _partners(shop.partners, shop.weights, tally, codes, types, kind)
        count = _add(tally, pool, count, kind, found)
    touched = _searched(
        shop.centres, shop.list_starts, shop.list_items, shop.list_small, shop.list_scales,
        scratch.list_weight, scratch.lists, tally, scratch.vectors[0],
    )  # fmt: skip
    count = _add(tally, pool, count, _SIMILAR, _similar(shop.embedding, tally, touched, scratch.vectors[0]))
    met = compare(shop.item_starts, shop.item_sessions, peers, recent, min(distinct, COMPARED))
    starts, items = shop.session_starts, shop.session_items
    alike = choose_peers(starts, items, tally, peers, recent, min(distinct, COMPARED), met)
    count = _add(tally, pool, count, _SESSIONS, _sessions(starts, items, shop.rarity, tally, peers, alike))
    count = _add(tally, pool, count, _POPULAR, _popular(shop.popular, tally))
    return _fill(tally, pool, count, forced)


@compiled
def release(tally: Tally, pool: Pool, count: int, recent: Int32s, distinct: int, barred: Int32s) -> None:
    """Free the slots of the candidates and of what was barred. `gather` may be called again."""
    for c in range(count):
        tally.slot[pool.items[c]] = FREE
    for i in range(distinct):
        tally.slot[recent[i]] = FREE
    for i in range(barred.size):
        tally.slot[barred[i]] = FREE


@compiled
def fuse(tally: Tally, pool: Pool, count: int) -> int:
    """Keep the best of the pool by all ranks together, best first, with their ranks and scores; gives how many."""
    for c in range(count):
        score = np.float32(0.0)
        for source in range(_SOURCES):
            if pool.ranks[c, source] != ABSENT:
                score += np.float32(1.0 / (RRF + pool.ranks[c, source]))
        tally.weight[pool.items[c]] = score
    kept = strongest(tally.weight, pool.items, count, _KEPT, tally.top)
    for c in range(kept):
        was = tally.slot[tally.top[c]]
        for source in range(_SOURCES):
            pool.moved[c, source] = pool.ranks[was, source]
        pool.fused[c] = tally.weight[tally.top[c]]
    for c in range(count):
        tally.weight[pool.items[c]] = 0.0
        tally.slot[pool.items[c]] = FREE
    for c in range(kept):
        pool.items[c] = tally.top[c]
        tally.slot[tally.top[c]] = c
        for source in range(_SOURCES):
            pool.ranks[c, source] = pool.moved[c, source]
    return kept


@compiled
def recent_items(codes: Int32s, out: Int32s) -> int:
    """The distinct items of events that are oldest first, the one seen last first; gives how many."""
    count = 0
    for p in range(codes.size - 1, -1, -1):
        known = False
        for i in range(count):
            if out[i] == codes[p]:
                known = True
                break
        if not known and count < out.size:
            out[count] = codes[p]
            count += 1
    return count


@compiled
def _bar(slot: Int32s, items: Int32s, count: int) -> None:
    for i in range(count):
        slot[items[i]] = BARRED


@compiled
def _session_vectors(
    embedding: Floats, codes: Int32s, types: Int8s, recent: Int32s, distinct: int, vectors: Floats
) -> None:
    session_vector(embedding, recent, distinct, DECAY, vectors[0])
    session_vector(embedding, recent, distinct, 1.0, vectors[1])
    for d in range(vectors.shape[1]):
        vectors[2, d] = 0.0
    weight = 1.0
    for p in range(codes.size - 1, -1, -1):
        share = np.float32(weight * _TYPE_WEIGHTS[types[p]])
        for d in range(vectors.shape[1]):
            vectors[2, d] += share * embedding[codes[p], d]
        weight *= DECAY
    unit(vectors[2])


@compiled
def _admit(tally: Tally, pool: Pool, count: int, item: int) -> None:
    tally.slot[item] = count
    pool.items[count] = item
    for source in range(_SOURCES):
        pool.ranks[count, source] = ABSENT


@compiled
def _add(tally: Tally, pool: Pool, count: int, source: int, found: int) -> int:
    """Take the items that a source has put into `top`, in its order."""
    for i in range(found):
        item = tally.top[i]
        if tally.slot[item] == FREE:
            if count >= POOL:
                continue
            _admit(tally, pool, count, item)
            count += 1
        pool.ranks[tally.slot[item], source] = i
    return count


@compiled
def _fill(tally: Tally, pool: Pool, count: int, forced: Int32s) -> int:
    for i in range(forced.size):
        if count >= CANDIDATES:
            break
        if tally.slot[forced[i]] == FREE:
            _admit(tally, pool, count, forced[i])
            count += 1
    return count


@compiled
def _partners(partners: Int32s, weights: Floats, tally: Tally, codes: Int32s, types: Int8s, kind: int) -> int:
    """The partners of the session's items, the later the item the more they count."""
    touched = _NOTHING
    weight = 1.0
    for p in range(codes.size - 1, -1, -1):
        share = np.float32(weight * _TYPE_WEIGHTS[types[p]] if kind == _TYPED else weight)
        weight *= DECAY
        for k in range(partners.shape[2]):
            item = partners[codes[p], kind, k]
            if item < 0:
                break
            if tally.slot[item] == BARRED:
                continue
            if tally.weight[item] == 0.0:
                tally.touched[touched] = item
                touched += 1
            tally.weight[item] += share * weights[codes[p], kind, k]
    return _take(tally, touched, _DEPTHS[kind])


@compiled
def _take(tally: Tally, touched: int, depth: int) -> int:
    """The heaviest of the touched items into `top`; the weights are cleared."""
    found = strongest(tally.weight, tally.touched, touched, depth, tally.top)
    for i in range(touched):
        tally.weight[tally.touched[i]] = 0.0
    return found


@compiled
def _searched(
    centres: Floats,
    list_starts: Int64s,
    list_items: Int32s,
    list_small: Int8s,
    list_scales: Floats,
    list_weight: Floats,
    lists: Int32s,
    tally: Tally,
    vector: Floats,
) -> int:
    """Add up what the bytes of the vectors in the nearest lists say; gives how many items were touched."""
    for at in range(centres.shape[0]):
        list_weight[at] = product(centres[at], vector)
    touched = _NOTHING
    for i in range(strongest(list_weight, lists, centres.shape[0], _SEARCHED, tally.top)):
        at = tally.top[i]
        for row in range(list_starts[at], list_starts[at + 1]):
            item = list_items[row]
            if tally.slot[item] != BARRED:
                tally.touched[touched] = item
                touched += 1
                tally.weight[item] = small_product(list_small[row], vector) * list_scales[row]
    return int(touched)


@compiled
def _similar(embedding: Floats, tally: Tally, touched: int, vector: Floats) -> int:
    """The items whose vectors point where the session's does: those that the search found, by their exact vectors."""
    found = _take(tally, touched, _FOUND)
    touched = _NOTHING
    for i in range(found):
        item = tally.top[i]
        likeness = product(embedding[item], vector)
        # What points the other way, or nowhere, is no likeness.
        if likeness > 0.0:
            tally.weight[item] = likeness
            tally.touched[touched] = item
            touched += 1
    return _take(tally, touched, _DEPTHS[_SIMILAR])


@compiled
def _sessions(
    session_starts: Int64s, session_items: Int32s, rarity: Floats, tally: Tally, peers: Peers, alike: int
) -> int:
    """The items of the sessions most like this one."""
    touched = _NOTHING
    for i in range(alike):
        for q in range(session_starts[peers.session[i]], session_starts[peers.session[i] + 1]):
            item = session_items[q]
            if tally.slot[item] == BARRED:
                continue
            if tally.weight[item] == 0.0:
                tally.touched[touched] = item
                touched += 1
            tally.weight[item] += peers.weight[i] * np.float32(1.0 + rarity[item])
    return _take(tally, touched, _DEPTHS[_SESSIONS])


@compiled
def _popular(popular: Int32s, tally: Tally) -> int:
    found = 0
    for i in range(popular.size):
        if found >= DEPTHS[POPULAR]:
            break
        if tally.slot[popular[i]] != BARRED:
            tally.top[found] = popular[i]
            found += 1
    return found
