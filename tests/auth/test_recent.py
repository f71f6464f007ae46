from __future__ import annotations

from maru.auth.recent import Recent

from .hand_clock import HandClock


def test_entries_end_with_their_time(clock: HandClock) -> None:
    recent: Recent[str, int] = Recent(8, 10.0, clock)
    recent.put("a", 1)
    clock.now += 9.9
    assert recent.get("a") == 1
    clock.now += 0.1
    assert recent.get("a") is None
    assert len(recent) == 0


def test_age_counts_from_when_the_value_was_true(clock: HandClock) -> None:
    recent: Recent[str, int] = Recent(8, 10.0, clock)
    recent.put("a", 1, since=clock() - 10.0)
    assert recent.get("a") is None


def test_no_more_than_its_size_is_kept_and_the_latest_stay(clock: HandClock) -> None:
    recent: Recent[int, int] = Recent(100, 10.0, clock)
    for i in range(10_000):
        recent.put(i, i)
    assert len(recent) == 100
    assert recent.get(9_999) == 9_999
    assert recent.get(9_000) is None


def test_putting_again_renews(clock: HandClock) -> None:
    recent: Recent[str, int] = Recent(2, 10.0, clock)
    recent.put("a", 1)
    recent.put("b", 2)
    recent.put("a", 3)
    recent.put("c", 4)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (3, None, 4)
