"""Measuring: what is measured is what the recommender serves, and a ranker has to earn its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from maru.services.recommend.core.events import TYPES, Events
from maru.services.recommend.core.examples import Visit
from maru.services.recommend.core.index import Index, IndexOptions
from maru.services.recommend.core.rankers import Fused
from maru.services.recommend.core.recommender import Query, Recommender
from maru.services.recommend.training.evaluation import Candidates, evaluate
from maru.services.recommend.training.outcomes import Outcomes
from maru.services.recommend.training.progress import silent
from maru.services.recommend.training.simulate import simulate
from maru.services.recommend.training.split import Windows, measuring


class Backwards:
    """A scorer that thinks most of what the fused order puts last."""

    def score(self, features: np.ndarray) -> np.ndarray:
        """By the fused score, which is among the features: the same wherever the rows are."""
        from maru.services.recommend.core.features import FEATURE_NAMES

        fused = features[:, FEATURE_NAMES.index("fused_score")]
        return (0.5 - np.clip(fused, 0, 0.4)).astype(np.float32)


class Knows:
    """A scorer that knows one feature that nothing else looks at first: how often the item is viewed next."""

    def score(self, features: np.ndarray) -> np.ndarray:
        from maru.services.recommend.core.features import FEATURE_NAMES

        return np.tanh(features[:, FEATURE_NAMES.index("next_recent")] / 10).astype(np.float32)


@dataclass(frozen=True, slots=True)
class World:
    index: Index
    events: Events
    visits: Sequence[Visit]


@pytest.fixture(scope="module")
def world() -> World:
    events = simulate(20_000, seed=5)
    windows = Windows.cut(events)
    known = events.before(windows.test)
    return World(Index.build(known, IndexOptions()), known, measuring(events, windows, most=200))


CURVES = {name: Fused() for name in TYPES}


def test_what_is_measured_is_what_is_served(world):
    """The served figures are those of the lists that the recommender gives for the same visits."""
    found = evaluate(world.index, world.events, world.visits, {}, CURVES, threads=1, progress=silent)
    recommender = Recommender(world.index, CURVES)
    lists = [recommender.recommend(Query(visit.aids, visit.ts, visit.types)).aids for visit in world.visits]
    served = Outcomes.of(world.visits, lists)
    assert found.ways["served"].metrics() == pytest.approx(served.metrics())
    assert found.ways["served"].metrics()["weighted"] > 0.05


def test_rankers_are_measured_as_they_serve(world):
    rankers = {"clicks": Knows(), "carts": Knows(), "orders": Knows()}
    found = evaluate(world.index, world.events, world.visits, rankers, CURVES, threads=1, progress=silent)
    scorers = {name: rankers[name] if found.shipped[name] else CURVES[name] for name in TYPES}
    recommender = Recommender(world.index, scorers)
    lists = [recommender.recommend(Query(visit.aids, visit.ts, visit.types)).aids for visit in world.visits]
    assert found.ways["served"].metrics() == pytest.approx(Outcomes.of(world.visits, lists).metrics(), abs=0.01)


def test_a_ranker_that_does_not_beat_the_fused_order_is_not_shipped(world):
    found = evaluate(
        world.index, world.events, world.visits, {"clicks": Backwards()}, CURVES, threads=1, progress=silent
    )
    assert found.shipped == {"clicks": False, "carts": False, "orders": False}
    assert found.gates["clicks"].value < 0 and found.gates["carts"].value == 0
    assert found.ways["rankers"].metrics()["recall@20_clicks"] < found.ways["fused"].metrics()["recall@20_clicks"]
    fused = evaluate(world.index, world.events, world.visits, {}, CURVES, threads=1, progress=silent)
    assert found.ways["served"].metrics() == fused.ways["served"].metrics()


def test_all_ways_are_measured_on_the_same_visits(world):
    told: list[float] = []
    found = evaluate(
        world.index, world.events, world.visits, {}, CURVES, threads=1, progress=lambda _, part: told.append(part)
    )
    assert set(found.ways) == {"served", "rankers", "fused", "V-SKNN", "co-visitation", "popularity"}
    for outcomes in found.ways.values():
        assert (outcomes.possible == found.ways["served"].possible).all() and found.visits == len(world.visits)
    assert told == sorted(told) and told[-1] == 1.0
    assert found.ways["V-SKNN"].metrics()["weighted"] > found.ways["popularity"].metrics()["weighted"]
    assert set(found.ahead()) == set(found.ways) - {"served"}


def test_calibration_is_of_the_scores_that_callers_see(world):
    found = evaluate(world.index, world.events, world.visits, {}, CURVES, threads=1, progress=silent)
    assert sum(tenth["candidates"] for tenth in found.calibration) <= 20 * len(world.visits)
    predicted = [tenth["predicted"] for tenth in found.calibration]
    assert predicted == sorted(predicted) and len(predicted) == 10


def test_lots_do_not_show(world, monkeypatch):
    one = Candidates.of(world.index, world.visits, {}, CURVES, threads=1, progress=silent)
    monkeypatch.setattr("maru.services.recommend.training.evaluation.LOT", 7)
    many = Candidates.of(world.index, world.visits, {}, CURVES, threads=1, progress=silent)
    for name in Candidates.__slots__:
        assert (getattr(one, name) == getattr(many, name)).all()
