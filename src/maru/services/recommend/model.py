"""The recommender as a model of the engine: what a session did goes in, what it is likely to do next comes out."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from maru.engine.errors import InputError
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef
from maru.services.recommend.core.compiling import keep_compiled_in
from maru.services.recommend.core.events import TYPES, Floats, Int8s, Int64s
from maru.services.recommend.core.features import DIMENSIONS, FEATURE_NAMES

if TYPE_CHECKING:  # numba and LightGBM come with it, which only a process that recommends is to load
    from maru.services.recommend.bundles import RecommendBundle
    from maru.services.recommend.core.recommender import Query, Ranked, Recommender

SCORES = (*TYPES, "combined")

BATCH = 8
"""Sessions that a worker takes at once: enough for the handing over to cost little beside the computing."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """How to recommend, as `core.recommender.Query` has it, for all sessions of a request.

    `weights` are the shares of clicks, carts and orders; the lists are ascending and hold nothing twice. `key` is the
    same for the same choice, and for no other.
    """

    top_k: int
    weights: tuple[float, float, float]
    exclude: Int64s
    include: Int64s | None
    categories: tuple[int, ...] | None
    explain: bool
    key: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One session and the choice that was made for it. `key` is the same for what has the same answer, and for nothing
    else."""

    aids: Int64s
    ts: Int64s
    types: Int8s
    choice: Choice
    key: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """By which source an item was found, at which place of its list (0: only to fill up), and for which item of the
    session, if for one."""

    source: str
    rank: int
    because: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Recommended:
    """New items, best first, their `scores` by the names of `SCORES`, and the session's `vector`.

    `found`, where it was asked for, tells of each item how it was found, the strongest source first.
    """

    aids: Int64s
    scores: Mapping[str, Floats]
    fallback: bool
    vector: Floats
    found: list[list[Found]] | None = None


class RecommenderModel(Model):
    """One bundle, opened. Its unit of cost is the session."""

    def __init__(self, bundle: RecommendBundle, recommender: Recommender) -> None:
        self._recommender = recommender
        self.index = recommender.index
        self.features = len(FEATURE_NAMES)
        self.rankers = {name: "trees" if f"{name}.txt" in bundle.manifest["files"] else "fusion" for name in TYPES}
        self.memory_bytes = self.index.memory_bytes
        self.metadata = described(bundle)

    @classmethod
    def spec(cls, name: str, bundle: RecommendBundle, limits: Limits, compiled: Path) -> ModelSpec:
        """How that bundle is served as a version of the model `name`. Machine code is kept in `compiled`."""

        def load() -> Model:
            keep_compiled_in(compiled)
            return cls(bundle, bundle.recommender())

        ref = ModelRef(name, bundle.version, bundle.digest)
        return ModelSpec(ref, load, limits, RecommendationCodec(), memory_bytes=bundle.memory_bytes, pinned=True)

    def prepare(self, inputs: Sequence[Asked]) -> list[Prepared | Exception]:
        return [self._ready(asked) for asked in inputs]

    def predict(self, batch: Sequence[Query]) -> list[Recommended]:
        return [recommended(self._recommender.recommend(query)) for query in batch]

    def warm(self) -> None:
        self._recommender.warm()

    def _ready(self, asked: Asked) -> Prepared | InputError:
        from maru.services.recommend.core.recommender import Query

        choice = asked.choice
        if choice.categories is not None and not len(self.index.arrays.category_names):
            return InputError("categories: the items of this bundle have none")
        return Prepared(
            Query(
                asked.aids,
                asked.ts,
                asked.types,
                choice.top_k,
                dict(zip(TYPES, choice.weights, strict=True)),
                choice.exclude if len(choice.exclude) else None,
                choice.include,
                choice.categories,
                choice.explain,
            )
        )


def limits(timeout_s: float) -> Limits:
    """For recommenders, each of which is run by as many threads as there are processors."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Limits(running=256, waiting=4096, deadline_s=timeout_s, max_batch_size=BATCH, workers=workers)


def recommended(ranked: Ranked) -> Recommended:
    """What the recommender found, in terms that need none of its libraries."""
    found = None
    if ranked.sources is not None:
        found = [[Found(source.name, source.rank, source.aid) for source in sources] for sources in ranked.sources]
    return Recommended(ranked.aids, ranked.scores, ranked.fallback, ranked.vector, found)


def described(bundle: RecommendBundle) -> dict[str, Any]:
    """A bundle's metadata, for the doors."""
    events = [{"name": name, "datatype": "INT64", "shape": [-1, -1]} for name in ("aids", "ts", "types")]
    scores = [{"name": name, "datatype": "FP32", "shape": [-1, -1]} for name in SCORES]
    return {
        "platform": "maru_recommender",
        "inputs": events,
        "outputs": [{"name": "recommendations", "datatype": "INT64", "shape": [-1, -1]}, *scores],
        "parameters": {"version": bundle.version, "sha256": bundle.digest, "event_types": list(TYPES)},
    }


class RecommendationCodec:
    """A Recommended as bytes: a mark, how many items, whether it is a fallback, the arrays, and in JSON how the
    items were found."""

    _head = struct.Struct("<4sI?3x")
    _mark = b"rec1"

    def encode(self, output: Recommended) -> bytes:
        parts = [self._head.pack(self._mark, len(output.aids), output.fallback), output.aids.astype("<i8").tobytes()]
        parts += [output.scores[name].astype("<f4", copy=False).tobytes() for name in SCORES]
        parts.append(output.vector.astype("<f4", copy=False).tobytes())
        if output.found is not None:
            parts.append(orjson.dumps([[(f.source, f.rank, f.because) for f in found] for found in output.found]))
        return b"".join(parts)

    def decode(self, data: bytes) -> Recommended:
        """ValueError for anything that `encode` did not make."""
        if len(data) < self._head.size or data[:4] != self._mark:
            raise ValueError("not a recommendation")
        _, count, fallback = self._head.unpack_from(data)
        start = self._head.size
        end = start + count * (8 + 4 * len(SCORES)) + 4 * DIMENSIONS
        if len(data) < end:
            raise ValueError("not a whole recommendation")
        aids = np.frombuffer(data, "<i8", count, start)
        floats = np.frombuffer(data, "<f4", count * len(SCORES) + DIMENSIONS, start + 8 * count)
        scores = {name: floats[place * count : (place + 1) * count] for place, name in enumerate(SCORES)}
        found = [[Found(*each) for each in one] for one in orjson.loads(data[end:])] if len(data) > end else None
        return Recommended(aids, scores, fallback, floats[count * len(SCORES) :], found)
