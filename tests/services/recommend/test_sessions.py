from __future__ import annotations

import numpy as np

from maru.services.recommend.sessions import Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def vector(value: float) -> np.ndarray:
    return np.full(128, value, np.float32)


def test_the_latest_vector_of_a_session_and_whose_it_is() -> None:
    sessions = Sessions(Clock())
    sessions.put(1, vector(0.5), "v1")
    sessions.put(1, vector(0.25), "v2")
    seen = sessions.get(1)
    assert seen is not None and seen.version == "v2" and (seen.vector == 0.25).all()
    assert sessions.get(2) is None


def test_it_is_kept_for_a_day_from_when_it_was_last_seen() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    sessions.put(1, vector(1), "v1")
    sessions.put(2, vector(1), "v1")
    clock.now = 3600.0
    sessions.put(1, vector(1), "v1")
    clock.now = 24 * 3600.0 - 1
    assert sessions.get(1) and sessions.get(2)
    clock.now += 1
    assert sessions.get(1) and sessions.get(2) is None
    clock.now += 3600
    assert sessions.get(1) is None


def test_what_has_ended_takes_no_memory_once_another_comes() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    for id in range(100):
        sessions.put(id, vector(1), "v1")
    clock.now = 25 * 3600.0
    sessions.put(100, vector(1), "v1")
    assert len(sessions) == 1


def test_no_more_than_so_many_and_those_not_seen_for_longest_go_first() -> None:
    sessions = Sessions(Clock(), most=3)
    for id in (1, 2, 3, 1, 4):
        sessions.put(id, vector(id), "v1")
    assert len(sessions) == 3
    assert [id for id in range(5) if sessions.get(id)] == [1, 3, 4]


def test_a_vector_is_a_copy() -> None:
    sessions = Sessions(Clock())
    given = vector(1)
    sessions.put(1, given, "v1")
    given[:] = 9
    seen = sessions.get(1)
    assert seen is not None and (seen.vector == 1).all()
