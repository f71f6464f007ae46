"""Sessions, as others are compared to them."""

from __future__ import annotations

import numpy as np

from maru.services.recommend.core.events import Events
from maru.services.recommend.core.features import RECENT
from maru.services.recommend.core.neighbours import SAMPLE, Sessions

WEEK = 7 * 86_400


def test_the_latest_session_is_first_and_its_last_item_too():
    events = Events.of(
        session=[5, 5, 5, 5, 2, 2, 8],
        aid=[10, 20, 10, 30, 20, 30, 10],
        ts=[0, 1, 2, 3, WEEK, WEEK + 3, 50],
        type=[0] * 7,
    )
    sessions = Sessions.of(events)
    assert sessions.ids.tolist() == [2, 8, 5]
    assert sessions.ids[sessions.by_id].tolist() == [2, 5, 8]
    assert sessions.starts.tolist() == [0, 2, 3, 6]
    assert events.catalogue[sessions.items].tolist() == [30, 20, 10, 30, 10, 20]
    of_item = np.split(sessions.of_item, sessions.item_starts[1:-1])
    assert [found.tolist() for found in of_item] == [[1, 2], [0, 2], [0, 2]]
    assert sessions.freshness[0] == 1 and 0.49 < sessions.freshness[2] < 0.51


def test_a_long_session_is_remembered_by_its_end():
    events = Events.of([1] * 100, np.arange(100), np.arange(100), [0] * 100)
    sessions = Sessions.of(events)
    assert sessions.items.tolist() == list(range(99, 99 - RECENT, -1))


def test_an_item_of_many_sessions_is_remembered_by_the_latest():
    many = SAMPLE + 40
    sessions = Sessions.of(Events.of(np.arange(many), [7] * many, np.arange(many), [0] * many))
    assert sessions.of_item.tolist() == list(range(SAMPLE))
    assert sessions.ids[sessions.of_item].min() == many - SAMPLE
