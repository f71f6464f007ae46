"""The arrays of a bundle, in memory and in a folder."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from maru.services.recommend.core.events import Events
from maru.services.recommend.core.index import FILES, Arrays, Index, IndexOptions
from maru.services.recommend.core.recommender import Query, Recommender


def same(a: Index, b: Index) -> bool:
    return all(np.array_equal(getattr(a.arrays, f.name), getattr(b.arrays, f.name)) for f in fields(Arrays))


def test_what_was_saved_is_opened_and_answers_alike(index, tmp_path):
    index.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    opened = Index.open(tmp_path)
    assert same(index, opened)
    assert (opened.total_items, opened.total_sessions) == (index.total_items, index.total_sessions) == (300, 1500)
    assert opened.memory_bytes == index.memory_bytes > 0
    seen = index.arrays.catalogue[[5, 30, 31]]
    query = Query(seen, np.arange(3) + index.latest, np.array([0, 1, 0], np.int8), top_k=40)
    answers = [Recommender(which, {}).recommend(query) for which in (index, opened)]
    assert (answers[0].aids == answers[1].aids).all()
    assert all((answers[0].scores[name] == answers[1].scores[name]).all() for name in answers[0].scores)


def test_the_same_bits_in_more_threads(events, index):
    assert same(Index.build(events, IndexOptions(threads=2)), index)


def test_it_can_not_be_written_to_and_the_events_still_can(events, index, tmp_path):
    index.save(tmp_path)
    for which in (index, Index.open(tmp_path)):
        for field in fields(Arrays):
            with pytest.raises(ValueError, match="read-only"):
                getattr(which.arrays, field.name)[...] = 0
    assert events.catalogue.flags.writeable and events.categories.flags.writeable


def test_files_that_are_not_what_they_were(index, tmp_path):
    index.save(tmp_path)
    (tmp_path / "weights.npy").unlink()
    with pytest.raises(ValueError, match=r"weights\.npy is missing"):
        Index.open(tmp_path)
    np.save(tmp_path / "weights.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"weights\.npy is not of shape"):
        Index.open(tmp_path)
    np.save(tmp_path / "weights.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"weights\.npy is not an array"):
        Index.open(tmp_path)
    (tmp_path / "weights.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"weights\.npy is not an array"):
        Index.open(tmp_path)


def test_a_file_that_is_cut_short(index, tmp_path):
    index.save(tmp_path)
    whole = (tmp_path / "embedding.npy").read_bytes()
    (tmp_path / "embedding.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"embedding\.npy"):
        Index.open(tmp_path)


def test_a_session_of_the_training_has_the_vector_that_its_events_would_have(events, index):
    recommender = Recommender(index, {})
    for session in (50_000, 50_777, 51_499):
        rows = events.session == session
        query = Query(events.catalogue[events.aid[rows]], events.ts[rows], events.type[rows])
        np.testing.assert_array_equal(index.session_vector(session), recommender.recommend(query).vector)
    assert index.session_vector(49_999) is None
    assert index.session_vector(2**62) is None


def test_an_item_has_a_vector(index):
    assert np.linalg.norm(index.item_vector(1007)) == pytest.approx(1, abs=1e-5)
    assert index.item_vector(7) is None


def test_a_partner_met_once_counts_for_less_than_one_met_often():
    sessions = [*np.repeat(np.arange(20), 2), 90, 90]
    index = Index.build(Events.of(sessions, [*[10, 20] * 20, 30, 40], np.zeros(42), np.zeros(42)))
    often, once = index.arrays.weights[[0, 2], 0, 0]
    assert 0.9 < often < 1 and 0.2 < once < 0.5


def test_progress_is_told_of_every_step(events):
    heard = []
    Index.build(events, progress=lambda step, part: heard.append((step, part)))
    assert {"co-visitation, viewed", "embedding", "sessions", "popularity"} <= {step for step, _ in heard}
    assert all(0 <= part <= 1 for _, part in heard)


def test_no_events():
    with pytest.raises(ValueError, match="no events"):
        Index.build(Events.of([], [], [], []))


def test_one_event_is_an_index():
    index = Index.build(Events.of([1], [10], [100], [0]))
    assert index.total_items == 1
    assert index.session_vector(1).tolist() == [0.0] * 128
    answer = Recommender(index, {}).recommend(Query(np.array([10]), np.array([5]), np.array([0])))
    assert len(answer.aids) == 0 and not answer.fallback


def test_one_event_is_saved_and_opened(tmp_path):
    index = Index.build(Events.of([1], [10], [100], [0]))
    index.save(tmp_path)
    assert same(Index.open(tmp_path), index)
