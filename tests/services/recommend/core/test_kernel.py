"""Candidates and their figures, beside plain Python that does the same with the index's arrays."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from maru.services.recommend.core.events import Events
from maru.services.recommend.core.features import (
    ABSENT,
    CANDIDATES,
    DEPTHS,
    FEATURE_NAMES,
    KINDS,
    POPULAR,
    POPULARITY,
    SESSIONS,
    SIMILAR,
    TYPE_WEIGHTS,
)
from maru.services.recommend.core.index import Index
from maru.services.recommend.core.kernel import History, Kernel, Proposed

NONE = np.zeros(0, np.int32)


def history(index: Index, *events: tuple[int, int, int]) -> History:
    codes, ts, types = np.array(events).T
    return History.of(codes.astype(np.int32), ts + index.latest, types)


@pytest.fixture
def seen(index) -> History:
    return history(index, (3, 0, 0), (5, 60, 1), (30, 90, 0), (5, 400, 0), (7, 5000, 2), (8, 5100, 0))


def copied(proposed: Proposed) -> tuple[list[int], np.ndarray, np.ndarray]:
    return proposed.codes.tolist(), proposed.ranks.copy(), proposed.features.copy()


def best(scores: dict[int, float], history: History, depth: int) -> list[int]:
    new = {item: score for item, score in scores.items() if item not in set(history.codes.tolist())}
    return sorted(new, key=lambda item: (-new[item], item))[:depth]


def of_source(proposed: Proposed, source: int) -> list[int]:
    """The items of one source among the candidates, at their ranks; the fusion may have cut some."""
    ranks = proposed.ranks[:, source]
    return [int(proposed.codes[at]) for at in np.argsort(ranks, kind="stable") if ranks[at] != ABSENT]


def assert_like(found: list[int], wanted: list[int]) -> None:
    kept = [item for item in wanted if item in set(found)]
    assert len(found) >= min(10, len(wanted)) and found == kept


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_partners_of_what_was_seen(index, seen, kind):
    scores: dict[int, float] = defaultdict(float)
    for age, (code, type) in enumerate(zip(seen.codes[::-1], seen.types[::-1], strict=True)):
        for item, weight in zip(index.arrays.partners[code, kind], index.arrays.weights[code, kind], strict=True):
            if item >= 0:
                scores[int(item)] += 0.85**age * weight * (TYPE_WEIGHTS[type] if KINDS[kind] == "typed" else 1)
    proposed = Kernel(index).propose(seen, NONE)
    assert_like(of_source(proposed, kind), best(scores, seen, DEPTHS[kind]))


def test_items_that_point_where_the_session_does(index, seen):
    vectors = index.arrays.embedding
    session = sum(0.85**age * vectors[code] for age, code in enumerate([8, 7, 5, 30, 3]))
    likeness = vectors @ session / np.linalg.norm(session)
    proposed = Kernel(index).propose(seen, NONE)
    np.testing.assert_allclose(proposed.vector, session / np.linalg.norm(session), rtol=1e-4, atol=1e-6)
    wanted = best({item: float(like) for item, like in enumerate(likeness) if like > 0}, seen, DEPTHS[SIMILAR])
    assert_like(of_source(proposed, SIMILAR), wanted)


def test_items_of_sessions_like_this_one(index, seen):
    arrays, recent = index.arrays, [8, 7, 5, 30, 3]
    similar: dict[int, float] = defaultdict(float)
    for age, item in enumerate(recent):
        for session in arrays.item_sessions[arrays.item_starts[item] : arrays.item_starts[item + 1]].tolist():
            similar[session] += (len(recent) - age) / len(recent)
    scores: dict[int, float] = defaultdict(float)
    for session in sorted(similar, key=lambda s: (-np.float32(similar[s]), s))[:200]:
        items = arrays.session_items[arrays.session_starts[session] : arrays.session_starts[session + 1]].tolist()
        first = min(age for age, item in enumerate(recent) if item in items)
        for item in items:
            scores[item] += similar[session] * (1 - first / 10) * (1 + arrays.rarity[item])
    proposed = Kernel(index).propose(seen, NONE)
    assert_like(of_source(proposed, SESSIONS), best(scores, seen, DEPTHS[SESSIONS]))


def test_popular_items(index, seen):
    wanted = [item for item in index.arrays.popular.tolist() if item not in set(seen.codes.tolist())][: DEPTHS[POPULAR]]
    assert_like(of_source(Kernel(index).propose(seen, NONE), POPULAR), wanted)


def test_the_candidates_are_those_that_most_sources_put_first(index, seen):
    proposed = Kernel(index).propose(seen, NONE)
    fused = [sum(1 / (60 + rank) for rank in ranks if rank != ABSENT) for ranks in proposed.ranks.tolist()]
    assert CANDIDATES >= len(fused) == len(set(proposed.codes.tolist())) > 80
    assert fused == sorted(fused, reverse=True)
    assert proposed.features[:, FEATURE_NAMES.index("fused_score")] == pytest.approx(fused, rel=1e-5)


def test_figures_like_their_definitions(index, seen):
    arrays = index.arrays
    proposed = Kernel(index).propose(seen, NONE)
    assert proposed.features.shape == (len(proposed.codes), 256) and len(set(FEATURE_NAMES)) == 256
    assert np.isfinite(proposed.features).all()
    ages = list(zip(range(len(seen)), seen.codes[::-1].tolist(), seen.types[::-1].tolist(), strict=True))
    for at in (0, 1, 17, 60, len(proposed.codes) - 1):
        item = int(proposed.codes[at])
        told = dict(zip(FEATURE_NAMES, proposed.features[at].tolist(), strict=True))
        for kind, name in enumerate(KINDS):
            met = {
                age: float(arrays.weights[code, kind][arrays.partners[code, kind] == item].sum())
                for age, code, _ in ages
            }
            bought = {age for age, _, type in ages if type}
            assert told[f"{name}_sum"] == pytest.approx(sum(met.values()), rel=1e-4, abs=1e-6)
            assert told[f"{name}_recent"] == pytest.approx(sum(0.85**a * w for a, w in met.items()), rel=1e-4, abs=1e-6)
            assert told[f"{name}_most"] == pytest.approx(max(met.values()), rel=1e-5)
            assert told[f"{name}_last"] == pytest.approx(met[0], rel=1e-5)
            assert told[f"{name}_items"] == sum(weight > 0 for weight in met.values())
            assert told[f"{name}_bought"] == pytest.approx(sum(w for a, w in met.items() if a in bought), abs=1e-5)
            assert told[f"{name}_rank"] == proposed.ranks[at, kind]
        vectors = arrays.embedding
        assert told["similar_recent"] == pytest.approx(float(proposed.vector @ vectors[item]), abs=1e-5)
        assert told["similar_last"] == pytest.approx(float(vectors[8] @ vectors[item]), abs=1e-5)
        assert told["similar_last_bought"] == pytest.approx(float(vectors[7] @ vectors[item]), abs=1e-5)
        near = [float(vectors[code] @ vectors[item]) for _, code, _ in ages]
        assert told["similar_most"] == pytest.approx(max(near), abs=1e-5)
        assert told["similar_least"] == pytest.approx(min(near), abs=1e-5)
        assert told["similar_near"] == pytest.approx(np.mean(near), abs=1e-5)
        assert told["item_popularity"] == arrays.stats[item, POPULARITY]
        assert told["item_age_last"] == pytest.approx(math.log1p(seen.ts[-1] - arrays.seen[item, 1]), rel=1e-5)
        assert told["product_7"] == pytest.approx(float(proposed.vector[7] * vectors[item, 7]), abs=1e-6)
        category = arrays.categories[item]
        assert told["category_of_last"] == (category == arrays.categories[8])
        shares = [0.85**age * (arrays.categories[code] == category) for age, code, _ in ages]
        assert told["category_share"] == pytest.approx(sum(shares) / sum(0.85**age for age, _, _ in ages), rel=1e-5)
    session = {name[8:]: told[name] for name in FEATURE_NAMES if name.startswith("session_")}
    assert [session[name] for name in ("events", "items", "clicks", "carts", "orders")] == [6, 5, 4, 1, 1]
    assert session["duration"] == pytest.approx(math.log1p(5100))
    assert session["last_gap"] == pytest.approx(math.log1p(100))
    assert session["mean_gap"] == 5100 / 5
    assert [session[name] for name in ("last_click", "last_cart", "last_order", "last_repeats")] == [1, 0, 0, 1]
    assert [session[name] for name in ("last_10min", "last_hour", "last_day")] == [2, 2, 6]


def test_figures_of_sessions_like_this_one(index, seen):
    kernel = Kernel(index)
    proposed, arrays = kernel.propose(seen, NONE), index.arrays
    found = kernel.scratch.peers
    peers = found.session[found.session >= 0]
    sessions = [arrays.session_items[arrays.session_starts[p] : arrays.session_starts[p + 1]].tolist() for p in peers]
    recent = [8, 7, 5, 30, 3]
    for at in (0, 3, 30):
        item = int(proposed.codes[at])
        told = dict(zip(FEATURE_NAMES, proposed.features[at].tolist(), strict=True))
        score, fresh, after, count = 0.0, 0.0, 0.0, 0
        for i, items in enumerate(sessions):
            if item not in items:
                continue
            weight = float(found.weight[i])
            match = items.index(next(one for one in recent if one in items))
            count += 1
            score += weight * (1 + float(arrays.rarity[item]))
            fresh += weight * float(arrays.freshness[peers[i]])
            after += weight / (match - items.index(item)) if items.index(item) < match else 0.0
        assert told["sessions_count"] == count
        assert told["sessions_score"] == pytest.approx(score, rel=1e-4)
        assert told["sessions_recent"] == pytest.approx(fresh, rel=1e-4)
        assert told["sessions_after"] == pytest.approx(after, rel=1e-4, abs=1e-6)


def test_nothing_that_was_seen_or_is_barred(index, seen):
    kernel = Kernel(index)
    first = set(kernel.propose(seen, NONE).codes.tolist())
    assert not first & set(seen.codes.tolist())
    barred = np.array(sorted(first)[:60], np.int32)
    second = set(kernel.propose(seen, barred).codes.tolist())
    assert len(second) > 60 and not second & set(barred.tolist()) and not second & set(seen.codes.tolist())


def test_only_what_is_allowed_and_all_of_it(index, seen):
    kernel = Kernel(index)
    allowed = np.array([3, 250, 260, 100, 8, 9], np.int32)
    assert set(kernel.propose(seen, np.array([100], np.int32), allowed).codes.tolist()) == {250, 260, 9}
    assert len(kernel.propose(seen, NONE, NONE).codes) == 0


def test_a_query_leaves_nothing_behind(index, seen):
    kernel = Kernel(index)
    fresh = copied(kernel.propose(seen, NONE))
    other = history(index, (200, 0, 0), (201, 5, 2))
    kernel.propose(other, np.arange(40, dtype=np.int32))
    kernel.propose(other, NONE, np.arange(100, 130, dtype=np.int32))
    kernel.propose(other, NONE, NONE)
    again = copied(kernel.propose(seen, NONE))
    assert fresh[0] == again[0] and (fresh[1] == again[1]).all() and (fresh[2] == again[2]).all()
    scratch = kernel.scratch
    assert not scratch.tally.weight.any() and not scratch.peers.likeness.any() and (scratch.tally.slot == -1).all()


def test_the_last_thirty_known_events_in_the_order_of_time():
    codes = np.arange(50, dtype=np.int32)
    codes[[0, 49]] = -1
    told = History.of(codes, np.arange(50)[::-1].copy(), np.zeros(50, np.int8))
    assert told.codes.tolist() == list(range(30, 0, -1))
    assert told.ts.tolist() == sorted(told.ts.tolist())


def test_times_beyond_any_date_are_finite_figures(index):
    for ts in ([-(2**62), 2**62], [2**63 - 1, -(2**63)], [0, 0]):
        told = History.of(np.array([4, 5], np.int32), np.array(ts, np.int64), np.zeros(2, np.int8))
        assert np.isfinite(Kernel(index).propose(told, NONE).features).all()


def test_a_shop_of_two_items():
    index = Index.build(Events.of([1, 1], [10, 20], [0, 1], [0, 0]))
    proposed = Kernel(index).propose(history(index, (0, 0, 0)), NONE)
    assert proposed.codes.tolist() == [1]
    assert np.isfinite(proposed.features).all()


def test_an_item_that_nothing_is_known_of_is_followed_by_its_category():
    random = np.random.default_rng(3)
    sessions = np.repeat(np.arange(400), 2)
    events = Events.of(
        [*sessions, 999],
        [*random.integers(300, size=800), 500],
        [*range(800), 900],
        [0] * 801,
        categories=([*range(300), 500], [*np.arange(300) % 2, 1]),
    )
    index = Index.build(events)
    lonely = int(index.codes([500])[0])
    proposed = Kernel(index).propose(history(index, (lonely, 10, 0)), NONE)
    assert len(proposed.codes) == CANDIDATES
    popular = proposed.ranks[:, POPULAR] != ABSENT
    assert (index.arrays.categories[proposed.codes[~popular]] == 1).all()
