"""All that was learned from one stretch of events, as arrays: made once, then only read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maru.services.recommend.core.covisitation import NEXT, Covisit, Occurrences, Pairs, in_threads
from maru.services.recommend.core.embedding import DECAY, FOLLOWERS, embed, session_vector
from maru.services.recommend.core.events import UNKNOWN, Events, Floats, Int32s, codes_of
from maru.services.recommend.core.features import DIMENSIONS, KINDS, POPULARITY
from maru.services.recommend.core.nearest import Lists
from maru.services.recommend.core.neighbours import Sessions
from maru.services.recommend.core.popularity import Popularity
from maru.services.recommend.core.shop import Shop

Progress = Callable[[str, float], None]
"""Told the name of a step, and which part of it is done, 0 to 1."""

PARTNERS = 50
"""How many partners of an item are kept, of each kind."""

DOUBT = 2.0
"""What is added to the weight of an item's strongest partner before all are divided by it."""


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How an index is built. The same events and options give the same bits, whatever `threads` is."""

    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Arrays:
    """What a bundle holds, a file an array, named as here. See the modules that make each part."""

    catalogue: NDArray[Any]
    span: NDArray[Any]
    partners: NDArray[Any]
    weights: NDArray[Any]
    embedding: NDArray[Any]
    centres: NDArray[Any]
    list_starts: NDArray[Any]
    list_items: NDArray[Any]
    list_small: NDArray[Any]
    list_scales: NDArray[Any]
    stats: NDArray[Any]
    seen: NDArray[Any]
    rarity: NDArray[Any]
    popular: NDArray[Any]
    categories: NDArray[Any]
    category_names: NDArray[Any]
    category_starts: NDArray[Any]
    category_items: NDArray[Any]
    session_ids: NDArray[Any]
    session_by_id: NDArray[Any]
    session_starts: NDArray[Any]
    session_items: NDArray[Any]
    freshness: NDArray[Any]
    item_starts: NDArray[Any]
    item_sessions: NDArray[Any]


FILES = tuple(f"{field.name}.npy" for field in fields(Arrays))
"""The files of an index."""


class Index:
    """The arrays of one bundle. Read-only, whether built or opened, and safe to read from several threads."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays = Arrays(*(_frozen(getattr(arrays, field.name)) for field in fields(Arrays)))
        self.shop = Shop(*(getattr(arrays, name) for name in Shop._fields))
        self.latest = int(arrays.span[1])

    @classmethod
    def build(
        cls,
        events: Events,
        options: IndexOptions = IndexOptions(),
        progress: Progress | None = None,
        covisit: Covisit | None = None,
    ) -> Index:
        """`covisit` computes the co-visitation somewhere else. ValueError when there are no events."""
        if not len(events):
            raise ValueError("there are no events to learn from")
        told: Progress = progress or (lambda step, part: None)
        pairs = _pairs(Occurrences.of(events), covisit or in_threads(options.threads, told))
        embedding = embed(*pairs[NEXT], options.seed, lambda part: told("embedding", part))
        told("lists", 0.0)
        lists = Lists.of(embedding, options.seed)
        told("sessions", 0.0)
        sessions = Sessions.of(events)
        told("popularity", 0.0)
        popularity = Popularity.of(events)
        told("popularity", 1.0)
        return cls(
            Arrays(
                catalogue=events.catalogue,
                span=np.array([events.ts.min(), events.ts.max()], np.int64),
                partners=np.stack([ids[:, :PARTNERS] for ids, _ in pairs], axis=1),
                weights=np.stack([_relative(weights[:, :PARTNERS]) for _, weights in pairs], axis=1),
                embedding=embedding,
                centres=lists.centres,
                list_starts=lists.starts,
                list_items=lists.items,
                list_small=lists.small,
                list_scales=lists.scales,
                stats=popularity.stats,
                seen=popularity.seen,
                rarity=popularity.rarity,
                popular=popularity.popular,
                categories=popularity.categories,
                category_names=popularity.names,
                category_starts=popularity.starts,
                category_items=popularity.by_category,
                session_ids=sessions.ids,
                session_by_id=sessions.by_id,
                session_starts=sessions.starts,
                session_items=sessions.items,
                freshness=sessions.freshness,
                item_starts=sessions.item_starts,
                item_sessions=sessions.of_item,
            )
        )

    def save(self, folder: Path) -> None:
        """One .npy file an array, into a folder that exists."""
        for field in fields(Arrays):
            np.save(folder / f"{field.name}.npy", getattr(self.arrays, field.name), allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Memory-mapped: nothing is read before it is needed. ValueError says which file is missing or misshapen."""
        arrays = Arrays(*(_mapped(folder / name) for name in FILES))
        items, sessions = len(arrays.catalogue), len(arrays.session_ids)
        for name, shape in (
            ("span", (2,)),
            ("partners", (items, len(KINDS), PARTNERS)),
            ("weights", (items, len(KINDS), PARTNERS)),
            ("embedding", (items, DIMENSIONS)),
            ("popular", (items,)),
            ("session_starts", (sessions + 1,)),
            ("item_starts", (items + 1,)),
        ):
            if getattr(arrays, name).shape != shape:
                raise ValueError(f"{name}.npy is not of shape {list(shape)}")
        return cls(arrays)

    @property
    def total_items(self) -> int:
        return len(self.arrays.catalogue)

    @property
    def total_sessions(self) -> int:
        return len(self.arrays.session_ids)

    @property
    def memory_bytes(self) -> int:
        """Of all arrays together."""
        return sum(getattr(self.arrays, field.name).nbytes for field in fields(Arrays))

    def codes(self, aids: ArrayLike) -> Int32s:
        """int32, the items' codes; -1 for an item that the catalogue does not hold."""
        return codes_of(self.arrays.catalogue, aids)

    def item_vector(self, aid: int) -> Floats | None:
        """float32 [128], of length one; zeros for an item seen with no other; None for one not in the catalogue."""
        code = int(self.codes([aid])[0])
        return None if code == UNKNOWN else np.array(self.arrays.embedding[code])

    def session_vector(self, session: int) -> Floats | None:
        """float32 [128], the embedding of a session of the training events; None for any other."""
        order, ids = self.arrays.session_by_id, self.arrays.session_ids
        found = int(np.searchsorted(ids, session, sorter=order))
        if found == len(ids) or ids[order[found]] != session:
            return None
        start, stop = self.arrays.session_starts[order[found] : order[found] + 2]
        items, vector = self.arrays.session_items[start:stop], np.empty(DIMENSIONS, np.float32)
        session_vector(self.arrays.embedding, items, len(items), DECAY, vector)
        return vector

    def in_categories(self, categories: ArrayLike) -> Int32s:
        """int32: the codes of the items of those categories, the most popular first."""
        wanted = np.asarray(categories, np.int64)
        places = np.unique(codes_of(self.arrays.category_names, wanted[wanted != UNKNOWN]))
        parts = [self._of_category(at) for at in places[places != UNKNOWN]]
        if len(parts) <= 1:
            return np.array(parts[0]) if parts else np.zeros(0, np.int32)
        return self.by_popularity(np.concatenate(parts))

    def in_category_of(self, code: int) -> Int32s:
        """int32: the codes of the items of an item's category, the most popular first; none when it has no category."""
        category = self.arrays.categories[code]
        if category == UNKNOWN:
            return self.arrays.category_items[:0]
        at = np.searchsorted(self.arrays.category_names, category)
        return self._of_category(at)

    def _of_category(self, place: np.integer[Any]) -> Int32s:
        starts = self.arrays.category_starts
        items: Int32s = self.arrays.category_items[starts[place] : starts[place + 1]]
        return items

    def by_popularity(self, codes: Int32s) -> Int32s:
        """The same codes, the most popular first."""
        order: Int32s = codes[np.lexsort((codes, -self.arrays.stats[codes, POPULARITY]))]
        return order


def _pairs(occurrences: Occurrences, covisit: Covisit) -> list[Pairs]:
    """By kind; the followers of an item are more than are kept, as its embedding is made of them too."""
    return [covisit(occurrences, kind, FOLLOWERS if kind == NEXT else PARTNERS) for kind in range(len(KINDS))]


def _relative(weights: Floats) -> Floats:
    """Each item's to its strongest: of an item that is met often no more is made than of another. One that was met
    once or twice with something has not proved much, and counts for less."""
    return (weights / (weights[:, :1] + DOUBT)).astype(np.float32)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.setflags(write=False)
    return view


def _mapped(path: Path) -> NDArray[Any]:
    try:
        # A plain array over the same memory: numba has no type for numpy's memmap.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise ValueError(f"{path.name} is missing or can't be read") from error
    except ValueError as error:
        return _nothing(path, error)


def _nothing(path: Path, error: ValueError) -> NDArray[Any]:
    """An array without elements, which can't be mapped."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError(f"{path.name} is not an array") from error
    if array.size:
        raise ValueError(f"{path.name} is not a whole array") from error
    return array
