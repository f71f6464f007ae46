"""Lists of vectors by their nearest centre."""

from __future__ import annotations

import numpy as np

from maru.services.recommend.core.nearest import PROBES, WHOLE, Lists


def clustered(count: int) -> np.ndarray:
    random = np.random.default_rng(5)
    middles = random.standard_normal((300, 128))
    vectors = middles[random.integers(300, size=count)] + 0.8 * random.standard_normal((count, 128))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_every_item_with_a_vector_is_in_one_list():
    vectors = clustered(WHOLE + 2000)
    vectors[::1000] = 0
    lists = Lists.of(vectors, 0)
    assert len(lists.centres) > PROBES
    assert sorted(lists.items.tolist()) == np.flatnonzero(vectors.any(axis=1)).tolist()
    assert lists.starts[0] == 0 and lists.starts[-1] == len(lists.items)
    restored = lists.small * lists.scales[:, None]
    assert np.abs(restored - vectors[lists.items]).max() < 0.005


def test_few_items_are_one_list():
    lists = Lists.of(clustered(500), 0)
    assert lists.starts.tolist() == [0, 500]


def test_no_vectors_at_all():
    lists = Lists.of(np.zeros((10, 128), np.float32), 0)
    assert lists.starts.tolist() == [0, 0] and not len(lists.items)


def test_the_lists_that_are_searched_hold_nearly_all_of_the_nearest():
    vectors = clustered(WHOLE + 4000)
    lists = Lists.of(vectors, 0)
    of_list = np.repeat(np.arange(len(lists.centres)), np.diff(lists.starts))[np.argsort(lists.items)]
    found = []
    for query in vectors[:200]:
        nearest = np.argsort(-(vectors @ query))[:30]
        searched = np.argsort(-(lists.centres @ query))[:PROBES]
        found.append(np.isin(of_list[nearest], searched).mean())
    assert np.mean(found) > 0.9


def test_the_same_lists_again():
    first, second = (Lists.of(clustered(WHOLE + 500), 3) for _ in range(2))
    assert (first.items == second.items).all() and (first.small == second.small).all()
