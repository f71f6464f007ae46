"""Which time teaches and which measures; what was wanted; and that nothing looks into the future."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.events import Events
from maru.services.recommend.core.examples import Visit
from maru.services.recommend.training.errors import TooFewEvents
from maru.services.recommend.training.simulate import simulate
from maru.services.recommend.training.split import Windows, measuring, teaching, visits

CLICK, CART, ORDER = 0, 1, 2


def shop(*sessions: list[tuple[int, int, int]]) -> Events:
    """Sessions of (aid, ts, type)."""
    rows = [(number, *event) for number, events in enumerate(sessions) for event in events]
    return Events.of(*np.array(rows).T)


def known(*aids: int) -> list[tuple[int, int, int]]:
    """A session of long ago that has these items."""
    return [(aid, 1, CLICK) for aid in aids]


def only(events: Events, seed: int = 0) -> Visit:
    (visit,) = visits(events, 100, 1000, known=100, seed=seed)
    return visit


def cut_at(events: Events, length: int) -> Visit:
    """The visit of which so many events are seen."""
    return next(visit for visit in (only(events, seed) for seed in range(200)) if len(visit.aids) == length)


def test_windows_are_shares_of_the_sessions_by_time():
    events = Events.of(np.arange(1000), np.zeros(1000), 5000 + np.arange(1000)[::-1], np.zeros(1000))
    assert Windows.cut(events, 0.2) == Windows(5600, 5800, 6000)


def test_too_few_sessions_or_all_at_once():
    with pytest.raises(TooFewEvents, match="there are 1 sessions; at least 100"):
        Windows.cut(shop(known(1, 2)))
    with pytest.raises(TooFewEvents, match="begin at one moment"):
        Windows.cut(shop(*[known(1, 2)] * 200))


def test_what_was_wanted_later():
    """The next click, all later carts and orders; less what was seen."""
    session = [
        (1, 101, CLICK), (2, 102, CART), (3, 103, CLICK), (1, 104, CLICK), (4, 105, CLICK),
        (2, 106, CART), (3, 107, CART), (3, 107, CART), (5, 108, CART), (1, 109, ORDER), (5, 110, ORDER),
    ]  # fmt: skip
    visit = cut_at(shop(known(1, 2, 3, 4, 5), session), 2)
    assert visit.aids.tolist() == [1, 2] and visit.types.tolist() == [CLICK, CART] and visit.ts.tolist() == [101, 102]
    assert {name: wanted.tolist() for name, wanted in visit.later.items()} == {
        "clicks": [3],
        "carts": [3, 5],
        "orders": [5],
    }


def test_the_next_click_is_no_label_when_it_was_seen_before_even_if_a_later_one_is_new():
    visit = cut_at(shop(known(1, 2), [(1, 101, CLICK), (1, 102, CLICK), (2, 103, CLICK)]), 1)
    assert visit.later["clicks"].tolist() == []


def test_items_that_no_one_knew_are_not_asked_for():
    """As in OTTO's test set. A session that is left with one event is none."""
    visit = only(shop(known(1, 2), [(1, 101, CLICK), (9, 102, CLICK), (2, 103, ORDER)]))
    assert visit.aids.tolist() == [1] and visit.later["orders"].tolist() == [2] and not len(visit.later["clicks"])
    assert visits(shop(known(1), [(1, 101, CLICK), (9, 102, CLICK)]), 100, 1000, known=100) == []


def test_sessions_belong_where_they_begin_and_end_with_the_window():
    before = [(1, 99, CLICK), (2, 101, CLICK), (3, 102, CLICK)]
    across = [(1, 998, CLICK), (2, 999, CLICK), (3, 1000, ORDER), (3, 1001, ORDER)]
    after = [(1, 1000, CLICK), (2, 1001, CLICK)]
    found = visits(shop(known(1, 2, 3), before, across, after), 100, 1000, known=100)
    assert [visit.aids.tolist() for visit in found] == [[1]] and found[0].later["orders"].tolist() == []


def test_cuts_are_different_and_visits_in_the_order_of_time():
    events = shop(known(*range(10)), *[[(n, 100 + 20 * s + n, CLICK) for n in range(10)] for s in range(8)])
    found = visits(events, 100, 1000, known=100, cuts=3)
    assert len(found) == 24 and len({(int(visit.ts[0]), len(visit.aids)) for visit in found}) == 24
    last = [int(visit.ts[-1]) for visit in found]
    assert last == sorted(last)
    assert len(visits(events, 100, 1000, known=100, cuts=3, most=5)) == 5
    assert {len(visit.aids) for visit in visits(events, 100, 1000, known=100, cuts=50)} == set(range(1, 10))


def as_tuples(found: list[Visit]) -> list[object]:
    return [
        (v.aids.tolist(), v.ts.tolist(), v.types.tolist(), {k: w.tolist() for k, w in v.later.items()}) for v in found
    ]


def replaced(events: Events, begin: int) -> Events:
    """The same until `begin`; what happened from then on is another history, with other items too."""
    future = events.ts >= begin
    chance = np.random.default_rng(99)
    aids = events.catalogue[events.aid]
    strange = np.concatenate([events.catalogue, np.arange(90_000, 90_500)])
    aids = np.where(future, chance.choice(strange, len(aids)), aids)
    types = np.where(future, chance.integers(0, 3, len(aids)), events.type)
    return Events.of(events.session, aids, events.ts, types)


@pytest.fixture(scope="module")
def simulated() -> Events:
    return simulate(20_000, seed=3)


def test_no_visit_that_teaches_knows_the_measuring_time(simulated):
    """What comes after the split may be any other history: what teaches stays as it is, to the last bit."""
    windows = Windows.cut(simulated)
    other = replaced(simulated, windows.test)
    assert Windows.cut(other) == windows
    taught = teaching(simulated, windows, most=10_000)
    assert len(taught) > 100
    assert as_tuples(taught) == as_tuples(teaching(other, windows, most=10_000))
    assert max(int(visit.ts[-1]) for visit in taught) < windows.test
    before, after = simulated.before(windows.test), other.before(windows.test)
    assert before.catalogue.tolist() == after.catalogue.tolist() and (before.aid == after.aid).all()


def test_moving_the_split_moves_what_is_known(simulated):
    """The proof above would be worth nothing if nothing depended on the split."""
    windows = Windows.cut(simulated)
    later = Windows(windows.ranking, windows.test + 86_400, windows.end)
    assert as_tuples(teaching(simulated, windows, most=10_000)) != as_tuples(teaching(simulated, later, most=10_000))
    other = replaced(simulated, windows.test)
    assert as_tuples(teaching(simulated, later, most=10_000)) != as_tuples(teaching(other, later, most=10_000))


def test_what_is_seen_of_a_measured_visit_ends_before_what_is_wanted(simulated):
    windows = Windows.cut(simulated)
    measured = measuring(simulated, windows, most=10_000)
    assert len(measured) > 100 and min(int(visit.ts[0]) for visit in measured) >= windows.test
    for visit in measured:
        for wanted in visit.later.values():
            assert not np.isin(wanted, visit.aids).any()
