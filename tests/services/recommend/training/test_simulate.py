"""The shop that does not exist: what was put into it can be found in its events."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.events import Events
from maru.services.recommend.training.errors import TooFewEvents
from maru.services.recommend.training.gathering import fingerprint
from maru.services.recommend.training.simulate import END, FIRST_AID, simulate


@pytest.fixture(scope="module")
def events() -> Events:
    return simulate(100_000, seed=1)


def test_the_same_seed_gives_the_same_events(events):
    assert fingerprint(simulate(100_000, seed=1)) == fingerprint(events)
    assert fingerprint(simulate(100_000, seed=2)) != fingerprint(events)


@pytest.mark.parametrize("count", [2_000, 50_000])
def test_as_many_events_as_were_asked_for(count):
    assert 0.9 * count < len(simulate(count)) < 1.1 * count


def test_too_few_or_too_many():
    for count in (100, 10**10):
        with pytest.raises(TooFewEvents, match="from 2,000 to 500,000,000"):
            simulate(count)


def test_numbers_that_the_documentation_uses():
    """Items 1001, 1002 and 2001 and session 12345 are in the starter, and its weeks end about when the examples are."""
    starter = simulate(100_000)
    assert {1001, 1002, 2001} <= set(starter.catalogue.tolist()) and 12345 in starter.session
    assert starter.catalogue[0] == FIRST_AID and starter.catalogue[-1] == FIRST_AID + len(starter.catalogue) - 1
    assert END - 86_400 < starter.ts.max() < END and starter.ts.min() < 1659304800 < END


def test_clicks_lead_to_carts_and_carts_to_orders(events):
    clicks, carts, orders = np.bincount(events.type)
    assert 0.05 < carts / clicks < 0.3 and 0.2 < orders / carts < 0.7
    pairs = [set(map(tuple, np.stack([events.session, events.aid], axis=1)[events.type == type])) for type in range(3)]
    assert pairs[1] <= pairs[0], "what was not clicked is in no cart"
    assert pairs[2] <= pairs[1], "what is in no cart is not ordered"


def test_neighbouring_clicks_are_of_one_category_more_often_than_by_chance(events):
    same_session = np.diff(events.session) == 0
    categories = events.categories[events.aid]
    together = (categories[1:] == categories[:-1])[same_session].mean()
    assert together > 5 * (np.bincount(categories) / len(categories) @ (np.bincount(categories) / len(categories)))


def test_what_goes_with_an_item_is_of_another_category(events):
    """Of the pairs that follow each other most often across categories, one category has one partner."""
    same_session = np.diff(events.session) == 0
    categories = events.categories[events.aid]
    first, second = categories[:-1][same_session], categories[1:][same_session]
    count = int(categories.max()) + 1
    table = np.bincount(first * count + second, minlength=count * count).reshape(count, count)
    np.fill_diagonal(table, 0)
    assert (table.max(axis=1) / table.sum(axis=1)).mean() > 3 * (table.sum(axis=0) / table.sum()).max()


def test_fashions_come_and_go(events):
    """Some items sell many times as well in their week as in others."""
    week = (END - events.ts) // (7 * 86_400)
    items = len(events.catalogue)
    by_week = np.bincount(week * items + events.aid, minlength=4 * items).reshape(4, items)
    sold = by_week.sum(axis=0) >= 60
    steady = np.sqrt(by_week[:, sold].mean(axis=0))
    assert ((by_week[:, sold].max(axis=0) - by_week[:, sold].mean(axis=0)) > 4 * steady).sum() >= 5
