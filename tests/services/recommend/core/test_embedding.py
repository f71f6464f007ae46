"""Items as vectors."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.covisitation import NEXT, Occurrences, in_threads
from maru.services.recommend.core.embedding import DECAY, FOLLOWERS, embed, session_vector
from maru.services.recommend.core.events import Events

CATEGORIES, OF_EACH = 12, 25  # as in conftest.py


def embedded(events: Events, threads: int = 1, seed: int = 0) -> np.ndarray:
    return embed(*in_threads(threads)(Occurrences.of(events), NEXT, FOLLOWERS), seed, lambda part: None)


def test_items_of_a_category_are_alike(events):
    vectors = embedded(events)
    assert vectors.shape == (CATEGORIES * OF_EACH, 128) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    alike = vectors @ vectors.T
    category = np.arange(len(vectors)) // OF_EACH
    same = category[:, None] == category
    np.fill_diagonal(same, False)
    others = category[:, None] != category
    assert alike[same].mean() > 0.3
    assert abs(alike[others].mean()) < 0.1


def test_the_same_bits_again(events):
    assert (embedded(events) == embedded(events, threads=2)).all()


def test_an_item_that_was_met_with_no_other_has_none():
    events = Events.of([1, 1, 2, 3, 3], [10, 20, 30, 10, 20], [0, 1, 0, 5, 6], [0] * 5)
    vectors = embedded(events)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 0], abs=1e-5)


def test_a_shop_where_nothing_meets():
    vectors = embedded(Events.of([1, 2, 3], [10, 20, 30], [0, 1, 2], [0, 0, 0]))
    assert vectors.shape == (3, 128) and not vectors.any()


def test_a_session_points_to_its_items_the_last_the_most(events):
    vectors = embedded(events)
    items = np.array([3, 40, 77], np.int32)
    out = np.empty(128, np.float32)
    session_vector(vectors, items, 3, DECAY, out)
    wanted = vectors[3] + DECAY * vectors[40] + DECAY**2 * vectors[77]
    np.testing.assert_allclose(out, wanted / np.linalg.norm(wanted), rtol=1e-4, atol=1e-6)
    session_vector(np.zeros_like(vectors), items, 3, DECAY, out)
    assert not out.any()
