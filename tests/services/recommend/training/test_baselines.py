"""The simple ways, on shops small enough to see what is right."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.events import Events
from maru.services.recommend.core.examples import Visit
from maru.services.recommend.training.baselines import Covisitation, Popularity, SessionNeighbours, recommend

DAY = 86_400


def shop(*sessions: str, days: list[int] | None = None) -> Events:
    """A session is a word whose letters are items; capitals are carts."""
    rows = [
        (number, ord(letter.lower()), (days[number] if days else 0) * DAY + place, int(letter.isupper()))
        for number, word in enumerate(sessions)
        for place, letter in enumerate(word)
    ]
    return Events.of(*np.array(rows).T)


def visit(word: str) -> Visit:
    aids = np.array([ord(letter) for letter in word], np.int64)
    return Visit(aids, np.arange(len(aids)), np.zeros(len(aids), np.int8), {})


def letters(aids: np.ndarray) -> str:
    return "".join(map(chr, aids))


def test_popularity_is_decayed_and_what_was_seen_is_left_out():
    events = shop("aaaaa", "bbb", "c", days=[0, 9, 9])
    assert letters(recommend(Popularity(events), events, visit("z"))) == "bca"
    assert letters(recommend(Popularity(events), events, visit("b"))) == "ca"


def test_a_cart_says_more_than_a_click():
    events = shop("aa", "B")
    assert letters(recommend(Popularity(events), events, visit("z"))) == "ba"


def test_neighbours_by_hand():
    """The session that shares two items tells more than those that share one; of b's sessions, as b came last."""
    events = shop("abx", "by", "az")
    assert letters(recommend(SessionNeighbours(events), events, visit("ab"))) == "xyz"
    scores = dict(zip(*SessionNeighbours(events).scores(np.array([0, 1], np.int32)), strict=True))
    rarity = np.log(3)
    assert scores[2] == pytest.approx(1.5 * (1 + rarity)), "x: similarity 1/2 + 1, matched at the last item"
    assert scores[3] == pytest.approx(1.0 * (1 + rarity)), "y: similarity 1"
    assert scores[4] == pytest.approx(0.5 * 0.9 * (1 + rarity)), "z: similarity 1/2, matched one item before"


def test_neighbours_of_nothing_known():
    events = shop("abx", "by")
    assert letters(recommend(SessionNeighbours(events), events, visit("q"))) == ""
    assert letters(recommend(SessionNeighbours(events), events, visit(""))) == ""


def test_only_the_latest_sessions_of_an_item_are_asked(monkeypatch):
    monkeypatch.setattr(SessionNeighbours, "SESSIONS", 1)
    events = shop("ax", "ay", "az", days=[1, 3, 2])
    assert letters(recommend(SessionNeighbours(events), events, visit("a"))) == "y"


def test_covisitation_adds_up_with_the_latest_item_first():
    events = shop("abcd")
    neighbours = np.array([[2, -1], [3, 2], [-1, -1], [-1, -1]], np.int32)
    weights = np.array([[1.0, 0], [1.0, 0.5], [0, 0], [0, 0]], np.float32)
    way = Covisitation(neighbours, weights)
    assert letters(recommend(way, events, visit("ba"))) == "cd", "c: 1 + 0.5 * 0.85, d: 0.85"
    assert letters(recommend(way, events, visit("b"))) == "dc"
    assert letters(recommend(way, events, visit("q"))) == ""


def test_no_more_than_twenty():
    events = shop("abcdefghijklmnopqrstuvwxyz")
    assert len(recommend(Popularity(events), events, visit("a"))) == 20
