"""The recommender as a model: what is kept of an answer, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maru.engine.errors import InputError
from maru.engine.model import Prepared
from maru.services.recommend.model import (
    SCORES,
    Asked,
    Choice,
    Found,
    RecommendationCodec,
    Recommended,
    RecommenderModel,
    recommended,
)

NOTHING = np.zeros(0, np.int64)


def made(count: int, found: bool = False, fallback: bool = False) -> Recommended:
    chance = np.random.default_rng(count)
    ways = [[Found("viewed_together", 1, 1001), Found("popular", 0, None)], []] * count
    return Recommended(
        chance.integers(-(2**53), 2**53, count),
        {name: chance.random(count, np.float32) for name in SCORES},
        fallback,
        chance.random(128, np.float32),
        ways[:count] if found else None,
    )


@pytest.mark.parametrize("count", [0, 1, 20, 1000])
@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("fallback", [True, False])
def test_what_is_cached_comes_back_bit_for_bit(count: int, found: bool, fallback: bool) -> None:
    codec, given = RecommendationCodec(), made(count, found, fallback)
    back = codec.decode(codec.encode(given))
    np.testing.assert_array_equal(back.aids, given.aids)
    np.testing.assert_array_equal(back.vector, given.vector)
    for name in SCORES:
        np.testing.assert_array_equal(back.scores[name], given.scores[name])
    assert (back.fallback, back.found) == (given.fallback, given.found)


def cuts() -> Iterator[bytes]:
    whole = RecommendationCodec().encode(made(3, found=True))
    yield from (
        b"",
        b"rec1",
        b"emb1" + whole[4:],
        whole[:-1],
        whole + b"]",
        whole[:4] + b"\xff\xff\xff\xff" + whole[8:],
    )
    yield from (whole[:length] for length in range(0, len(whole) - 1, 37) if length != len(whole))


def test_other_bytes_are_told() -> None:
    codec = RecommendationCodec()
    sound = len(RecommendationCodec().encode(made(3)))
    for data in cuts():
        if len(data) != sound:  # where the explanation is cut off whole
            with pytest.raises(ValueError):
                codec.decode(data)


class Echo:
    """Recommends what it was asked for, so that a test can see it."""

    def __init__(self, categories: Sequence[int]) -> None:
        arrays = SimpleNamespace(category_names=np.array(categories))
        self.index = SimpleNamespace(memory_bytes=123, arrays=arrays)

    def recommend(self, query: Any) -> Any:
        scores = dict.fromkeys(SCORES, np.zeros(len(query.aids), np.float32))
        vector = np.zeros(128, np.float32)
        return SimpleNamespace(aids=query.aids, scores=scores, fallback=False, sources=None, vector=vector)


def model(*categories: int, **files: object) -> RecommenderModel:
    bundle: Any = SimpleNamespace(version="v7", digest="d" * 64, manifest={"files": files})
    recommender: Any = Echo(categories)
    return RecommenderModel(bundle, recommender)


def asked(**changes: Any) -> Asked:
    chosen = {"top_k": 3, "weights": (0.1, 0.3, 0.6), "exclude": NOTHING, "include": None, "categories": None}
    choice = Choice(**{**chosen, "explain": False, "key": b"", **changes})
    return Asked(np.array([5, 6]), np.array([1, 2]), np.array([0, 1], np.int8), choice, b"")


def test_the_query_is_what_was_asked() -> None:
    (ready,) = model(1).prepare([asked(exclude=np.array([9]), include=np.array([5]), categories=(1, 2), explain=True)])
    assert isinstance(ready, Prepared)
    query = ready.value
    assert (query.aids.tolist(), query.ts.tolist(), query.types.tolist(), query.top_k) == ([5, 6], [1, 2], [0, 1], 3)
    assert query.weights == {"clicks": 0.1, "carts": 0.3, "orders": 0.6}
    assert (query.exclude.tolist(), query.include.tolist()) == ([9], [5])
    assert (list(query.categories), query.explain) == ([1, 2], True)
    assert [each.aids.tolist() for each in model().predict([query, query])] == [[5, 6]] * 2


def test_categories_where_items_have_none_are_a_mistake_of_that_one_request() -> None:
    good, bad = model().prepare([asked(), asked(categories=(1,))])
    assert isinstance(good, Prepared) and isinstance(bad, InputError) and "categories" in str(bad)


def test_what_it_says_of_itself() -> None:
    described = model(**{"clicks.txt": {}, "carts.json": {}})
    assert described.rankers == {"clicks": "trees", "carts": "fusion", "orders": "fusion"}
    assert (described.features, described.memory_bytes) == (256, 123)
    assert described.metadata["parameters"]["version"] == "v7"


def test_sources_are_told_by_name() -> None:
    source = SimpleNamespace(name="similar", rank=2, aid=1001)
    ranked: Any = SimpleNamespace(
        aids=NOTHING, scores={}, fallback=False, vector=np.zeros(128, np.float32), sources=[[source]]
    )
    assert recommended(ranked).found == [[Found("similar", 2, 1001)]]


@pytest.mark.parametrize("module", ["assembly", "declaration", "starter", "bundles"])
def test_a_process_that_does_not_recommend_loads_none_of_its_libraries(module: str, tmp_path: Path) -> None:
    heavy = ("numba", "lightgbm", "polars", "scipy", "sklearn", "llvmlite")
    code = f"import sys, maru.services.recommend.{module}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.strip() == "[]"
