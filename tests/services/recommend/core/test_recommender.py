"""What a visitor is shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from maru.services.recommend.core.events import TYPES
from maru.services.recommend.core.examples import gather_examples
from maru.services.recommend.core.features import SHARES, SOURCES
from maru.services.recommend.core.index import Index
from maru.services.recommend.core.rankers import Ranker, RankerOptions, train_ranker
from maru.services.recommend.core.recommender import Query, Ranked, Recommender, Source
from maru.services.recommend.core.trees import Forest

SCORES = ("clicks", "carts", "orders", "combined")


@pytest.fixture(scope="module")
def recommender(index, visits) -> Recommender:
    examples = gather_examples(index, visits, rate=0.3)
    texts = [train_ranker(examples, kind, RankerOptions(trees=30)) for kind in (0, 1)]
    return Recommender(index, {name: Ranker(Forest.parse(text)) for name, text in zip(TYPES, texts, strict=False)})


def query(*aids: int, **options: object) -> Query:
    return Query(
        np.array(aids, np.int64),
        1_661_300_000 + 60 * np.arange(len(aids)),
        np.zeros(len(aids), np.int8),
        **options,
    )


def assert_in_order(ranked: Ranked) -> None:
    assert len(set(ranked.aids.tolist())) == len(ranked.aids)
    for name in SCORES:
        scores = ranked.scores[name]
        assert scores.shape == ranked.aids.shape and scores.dtype == np.float32
        assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()
    assert (np.diff(ranked.scores["combined"]) <= 0).all()


@pytest.mark.parametrize("top_k", [1, 20, 100, 101, 250])
def test_as_many_as_are_asked_for_and_all_of_them_new(recommender, top_k):
    ranked = recommender.recommend(query(1003, 1007, 1003, 7, top_k=top_k))
    assert len(ranked.aids) == top_k and not ranked.fallback
    assert not {1003, 1007} & set(ranked.aids.tolist())
    assert_in_order(ranked)
    assert ranked.aids.dtype == np.int64
    assert np.linalg.norm(ranked.vector) == pytest.approx(1, abs=1e-5)


def test_more_than_there_are_is_the_whole_rest(recommender):
    ranked = recommender.recommend(query(1003, 1007, top_k=1000))
    assert sorted(ranked.aids.tolist()) == [aid for aid in range(1000, 1300) if aid not in (1003, 1007)]
    assert_in_order(ranked)
    fallen = recommender.recommend(query(7, top_k=1000))
    assert sorted(fallen.aids.tolist()) == list(range(1000, 1300))
    assert_in_order(fallen)


def test_it_follows_the_session(recommender):
    """Most of the first ten are of the category that is looked at."""
    for category in (0, 5, 11):
        first = 1000 + 25 * category
        ranked = recommender.recommend(query(first, first + 2, first + 3, top_k=10))
        assert ((ranked.aids - 1000) // 25 == category).sum() >= 7


def test_combined_is_the_mean_by_the_weights(recommender):
    weights = {"clicks": 2.0, "orders": 6.0}
    ranked = recommender.recommend(query(1003, 1007, weights=weights))
    wanted = 0.25 * ranked.scores["clicks"] + 0.75 * ranked.scores["orders"]
    np.testing.assert_allclose(ranked.scores["combined"], wanted, rtol=1e-5)
    only = recommender.recommend(query(1003, 1007, weights={"carts": 0.001}))
    np.testing.assert_allclose(only.scores["combined"], only.scores["carts"], rtol=1e-6)


@pytest.mark.parametrize(
    "weights",
    [{"clicks": -1.0, "carts": 2.0}, {"clicks": 0.0}, {}, {"views": 1.0}, {"clicks": float("nan")}, {"carts": np.inf}],
)
def test_weights_that_are_none(recommender, weights):
    with pytest.raises(ValueError, match="weights"):
        recommender.recommend(query(1003, weights=weights))


def test_weights_of_any_size_are_relative(recommender):
    for huge in (1e308, 5e-324):
        ranked = recommender.recommend(query(1003, 1007, weights=dict.fromkeys(("clicks", "carts", "orders"), huge)))
        assert_in_order(ranked)
        assert ranked.scores["combined"][0] > 0


@pytest.mark.parametrize("top_k", [20, 200])
def test_excluded_items_are_not_there_and_the_answer_is_as_long(recommender, top_k):
    usual = recommender.recommend(query(1003, 1007, top_k=top_k))
    excluded = np.concatenate((usual.aids[:15], [5, 10**12]))
    ranked = recommender.recommend(query(1003, 1007, top_k=top_k, exclude=excluded))
    assert len(ranked.aids) == top_k and not set(excluded.tolist()) & set(ranked.aids.tolist())
    fallen = recommender.recommend(query(top_k=top_k, exclude=excluded))
    assert len(fallen.aids) == top_k and not set(excluded.tolist()) & set(fallen.aids.tolist())


def test_only_included_items_and_each_ranked(recommender):
    include = np.array([1010, 1200, 1003, 1011, 9, 1201, 1010])
    ranked = recommender.recommend(query(1003, 1007, 1009, include=include))
    assert sorted(ranked.aids.tolist()) == [1010, 1011, 1200, 1201]
    assert set(ranked.aids[:2].tolist()) == {1010, 1011}
    assert_in_order(ranked)
    many = np.arange(1000, 1150)
    wide = recommender.recommend(query(1003, 1007, include=many, top_k=1000))
    assert sorted(wide.aids.tolist()) == [aid for aid in many.tolist() if aid not in (1003, 1007)]
    assert_in_order(wide)
    fallen = recommender.recommend(query(include=include, exclude=np.array([1200])))
    assert sorted(fallen.aids.tolist()) == [1003, 1010, 1011, 1201] and fallen.fallback


@pytest.mark.parametrize("include", [[], [9, 10**15], [1003]])
def test_nothing_is_left_to_recommend(recommender, include):
    ranked = recommender.recommend(query(1003, include=np.array(include, np.int64)))
    assert len(ranked.aids) == 0
    assert_in_order(ranked)


def test_only_those_categories_whatever_was_seen(recommender, index):
    for seen in ((1003, 1007), (7,), ()):
        ranked = recommender.recommend(query(*seen, categories=[3, 4, 99, -1], top_k=45))
        assert len(ranked.aids) == 45 and set(((ranked.aids - 1000) // 25).tolist()) == {3, 4}
        assert_in_order(ranked)
    both = recommender.recommend(query(1003, categories=[3], include=np.array([1080, 1010])))
    assert both.aids.tolist() == [1080]
    assert len(recommender.recommend(query(1003, categories=[])).aids) == 0


@pytest.mark.parametrize("seen", [(), (5, 6, 10**15)])
def test_of_a_session_nobody_knows_what_is_popular(recommender, index, seen):
    ranked = recommender.recommend(query(*seen, top_k=30))
    assert ranked.fallback and not ranked.vector.any() and len(ranked.aids) == 30
    assert_in_order(ranked)
    shares = index.arrays.stats[:, SHARES : SHARES + 3] @ [0.1, 0.3, 0.6]
    np.testing.assert_allclose(ranked.scores["combined"], np.sort(shares)[::-1][:30], rtol=1e-5)
    np.testing.assert_allclose(ranked.scores["combined"], shares[index.codes(ranked.aids)], rtol=1e-5)
    clicks = recommender.recommend(query(*seen, weights={"clicks": 1.0}))
    orders = recommender.recommend(query(*seen, weights={"orders": 1.0}))
    assert clicks.aids.tolist() != orders.aids.tolist()


def test_the_order_of_the_events_is_their_time(recommender):
    aids, ts = np.array([1003, 1107, 1009]), np.array([300, 100, 200]) + 1_661_300_000
    types = np.array([0, 1, 2], np.int8)
    shuffled = recommender.recommend(Query(aids, ts, types))
    sorted_ = recommender.recommend(Query(aids[[1, 2, 0]], ts[[1, 2, 0]], types[[1, 2, 0]]))
    assert (shuffled.aids == sorted_.aids).all()
    np.testing.assert_array_equal(shuffled.scores["combined"], sorted_.scores["combined"])


def test_a_long_session_gets_none_of_its_items_back(recommender):
    aids = np.arange(1000, 1120)
    ranked = recommender.recommend(query(*aids.tolist(), top_k=180))
    assert sorted(ranked.aids.tolist()) == list(range(1120, 1300))


def test_why(recommender, index):
    ranked = recommender.recommend(query(1003, 1106, 1007, top_k=250, explain=True))
    assert len(ranked.sources) == 250
    names = set()
    for aid, sources in zip(ranked.aids.tolist(), ranked.sources, strict=True):
        assert sources
        ranks = [source.rank for source in sources]
        assert ranks == sorted(ranks)
        for source in sources:
            names.add(source.name)
            if source.name == "popular":
                assert source.aid is None
            else:
                assert source.aid in (1003, 1106, 1007)
            if source.name == "viewed_together":
                partners = index.arrays.partners[int(index.codes([source.aid])[0]), 0]
                assert index.codes([aid])[0] in partners
            if source.name == "same_category":
                assert source.rank == 0 and (source.aid - 1000) // 25 == (aid - 1000) // 25
    assert names >= {*SOURCES}
    assert ranked.sources[-1] == [Source("popular", 0, None)]
    fallen = recommender.recommend(query(explain=True, top_k=3))
    assert fallen.sources == [[Source("popular", place, None)] for place in (1, 2, 3)]
    assert recommender.recommend(query(1003)).sources is None


def test_threads_do_not_meet(recommender, index):
    random = np.random.default_rng(8)
    asked = [query(*(1000 + random.integers(300, size=random.integers(1, 9))).tolist(), top_k=30) for _ in range(200)]
    alone = [recommender.recommend(one).aids.tolist() for one in asked]
    with ThreadPoolExecutor(8) as pool:
        together = [ranked.aids.tolist() for ranked in pool.map(recommender.recommend, asked)]
    assert alone == together


def test_rankers_are_asked_and_without_any_the_fused_order_serves(recommender, index):
    plain = Recommender(index, {})
    plain.warm()
    seen = query(1003, 1007, top_k=50)
    fused, ranked = plain.recommend(seen), recommender.recommend(seen)
    assert_in_order(fused)
    assert fused.aids.tolist() != ranked.aids.tolist()
    assert len(set(fused.aids.tolist()) & set(ranked.aids.tolist())) > 25


def test_warm_compiles_all_there_is(recommender, index: Index):
    from maru.services.recommend.core.kernel import _propose

    recommender.warm()
    compiled = len(_propose.signatures)
    for options in ({}, {"include": np.arange(1000, 1100)}, {"categories": [1]}, {"exclude": np.array([1001])}):
        recommender.recommend(query(1003, top_k=300, explain=True, **options))
        recommender.recommend(query(top_k=300, **options))
    assert len(_propose.signatures) == compiled
