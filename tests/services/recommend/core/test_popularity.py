"""What is said of an item alone, beside its definition."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.events import UNKNOWN, Events
from maru.services.recommend.core.features import ITEM, SHARES
from maru.services.recommend.core.popularity import HALF_LIFE_S, Popularity

DAY = 86_400


def figures(popularity: Popularity, item: int) -> dict[str, float]:
    return dict(zip(ITEM, popularity.stats[item].tolist(), strict=False))


def test_like_its_definition(events):
    popularity = Popularity.of(events)
    last = events.ts.max()
    decayed = np.array(
        [
            [
                (2.0 ** ((events.ts - last) / HALF_LIFE_S))[(events.aid == item) & (events.type == kind)].sum()
                for kind in range(3)
            ]
            for item in range(len(events.catalogue))
        ]
    )
    score = decayed @ [1, 6, 3]
    ordered = score[popularity.popular]
    assert (ordered[:-1] >= ordered[1:] - 1e-9).all()
    np.testing.assert_allclose(popularity.stats[:, SHARES : SHARES + 3], decayed / decayed.sum(axis=0), rtol=1e-5)
    for item in (0, 77, 299):
        mine = events.aid == item
        told = figures(popularity, item)
        clicks, carts = mine & (events.type == 0), mine & (events.type == 1)
        assert told["clicks_3d"] == pytest.approx(np.log1p((clicks & (events.ts > last - 3 * DAY)).sum()))
        assert told["carts_28d"] == pytest.approx(np.log1p(carts.sum()))
        assert told["carts_per_click"] == pytest.approx(carts.sum() / (clicks.sum() + 1))
        sessions = len(np.unique(events.session[mine]))
        assert told["sessions"] == pytest.approx(np.log1p(sessions), rel=1e-6)
        assert told["events"] == pytest.approx(np.log1p(mine.sum()), rel=1e-6)
        assert told["repeated"] == pytest.approx(mine.sum() / sessions)
        ends = events.starts()[1:] - 1
        assert told["exit"] == pytest.approx((events.aid[ends] == item).sum() / mine.sum(), rel=1e-6)
        assert told["popularity"] == pytest.approx(np.log1p(score[item]), rel=1e-5)
        assert popularity.seen[item].tolist() == [events.ts[mine].min(), events.ts[mine].max()]
        assert popularity.rarity[item] == pytest.approx(np.log(1500 / sessions), rel=1e-5)
    assert np.isfinite(popularity.stats).all()


def test_a_category_has_its_items_the_most_popular_first(events):
    popularity = Popularity.of(events)
    place = np.argsort(popularity.popular)
    assert popularity.names.tolist() == sorted(set(events.categories.tolist()))
    for at, name in enumerate(popularity.names):
        items = popularity.by_category[popularity.starts[at] : popularity.starts[at + 1]]
        assert sorted(items.tolist()) == np.flatnonzero(events.categories == name).tolist()
        assert (np.diff(place[items]) > 0).all()


def test_a_shop_without_categories():
    popularity = Popularity.of(Events.of([1, 1], [10, 20], [0, 1], [0, 1]))
    assert popularity.categories.tolist() == [UNKNOWN, UNKNOWN]
    assert popularity.popular.tolist() == [1, 0]


def test_what_was_popular_is_forgotten():
    events = Events.of(np.arange(30), [10] * 20 + [20] * 10, [0] * 20 + [30 * DAY] * 10, [0] * 30)
    assert Popularity.of(events).popular.tolist() == [1, 0]
