"""A whole training: what is learned, what is written, and that the future has no part in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maru.services.recommend.bundles import Bundles
from maru.services.recommend.core.events import TYPES, Events
from maru.services.recommend.core.examples import Examples, gather_examples
from maru.services.recommend.core.features import FEATURE_NAMES
from maru.services.recommend.core.index import Index, IndexOptions
from maru.services.recommend.core.rankers import RankerOptions
from maru.services.recommend.core.recommender import Query
from maru.services.recommend.training import train as training
from maru.services.recommend.training.errors import TooFewEvents, TrainingError
from maru.services.recommend.training.gathering import Reading, fingerprint
from maru.services.recommend.training.progress import silent
from maru.services.recommend.training.simulate import simulate
from maru.services.recommend.training.split import Windows, teaching
from maru.services.recommend.training.train import TrainedRecommender, TrainingOptions, train

OPTIONS = TrainingOptions(simulated=20_000, seed=4, teaching=800, measuring=300)


@pytest.fixture(scope="module")
def trained() -> TrainedRecommender:
    return train(OPTIONS, silent)


def written(folder: Path, trained: TrainedRecommender) -> Mapping[str, Any]:
    return Bundles(folder).add(trained.write).manifest


def test_a_bundle_says_what_it_is(trained, tmp_path):
    manifest = written(tmp_path, trained)
    events = simulate(20_000, seed=4)
    assert manifest["data"]["sha256"] == fingerprint(events) and manifest["data"]["events"] == len(events)
    assert manifest["features"] == list(FEATURE_NAMES) and len(manifest["features"]) == 256
    assert manifest["options"]["simulated"] == 20_000 and manifest["options"]["seed"] == 4
    assert set(manifest["metrics"]) == {"served", "rankers", "fused", "V-SKNN", "co-visitation", "popularity"}
    for metric in ("recall@20_clicks", "recall@20_carts", "recall@20_orders", "weighted", "mrr@20"):
        figure = manifest["metrics"]["served"][metric]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert manifest["metrics"]["served"]["weighted"]["value"] > manifest["metrics"]["popularity"]["weighted"]["value"]
    files = set(manifest["files"])
    for name in TYPES:
        shipped = manifest["rankers"][name] == "ranker"
        assert (f"{name}.txt" in files) == shipped and (f"{name}.json" in files) == (not shipped)
        assert shipped == (manifest["gates"].get(name, {"value": 0})["value"] > 0)
    assert not [name for name in files if not name.endswith((".npy", ".txt", ".json"))]
    json.dumps(manifest, allow_nan=False)


def test_a_bundle_recommends_what_goes_together(trained, tmp_path):
    """Opened from its files, for a session that nobody has seen."""
    bundle = Bundles(tmp_path).add(trained.write)
    recommender = Bundles(tmp_path).open(bundle.version).recommender()
    events = simulate(20_000, seed=4)
    popular = int(np.bincount(events.aid).argmax())
    aids, now = events.catalogue[[popular]], np.array([int(events.ts.max())])
    ranked = recommender.recommend(Query(aids, now, np.zeros(1, np.int8)))
    assert len(ranked.aids) == 20 and not ranked.fallback and aids[0] not in ranked.aids
    place = np.searchsorted(events.catalogue, ranked.aids)
    assert (events.categories[place] == events.categories[popular]).mean() > 0.3
    for name in (*TYPES, "combined"):
        assert ((ranked.scores[name] >= 0) & (ranked.scores[name] <= 1)).all()


def test_equal_options_give_an_equal_bundle(trained, tmp_path):
    again = written(tmp_path / "b", train(OPTIONS, silent))
    assert again["files"] == written(tmp_path / "a", trained)["files"]
    assert {**again, "created": ""} == {**written(tmp_path / "a", trained), "created": ""}


def future(events: Events, begin: int) -> Events:
    """The same until `begin`; from then on everyone wants one and the same item."""
    aids = np.where(events.ts < begin, events.catalogue[events.aid], events.catalogue[0])
    types = np.where(events.ts < begin, events.type, 2)
    assert events.categories is not None
    return Events.of(events.session, aids, events.ts, types, categories=(events.catalogue, events.categories))


def test_no_label_of_the_future_is_in_any_feature():
    """Whatever happens from the measuring time on: the index that is measured and all that the rankers learn from
    are the same to the last bit. And with the split moved to later they are not, so that the proof proves something."""
    events = simulate(20_000, seed=6)
    windows = Windows.cut(events)
    other = future(events, windows.test)

    def learned(events: Events, windows: Windows) -> list[np.ndarray]:
        taught = Index.build(events.before(windows.ranking), IndexOptions())
        examples = gather_examples(taught, teaching(events, windows, most=300))
        measured = Index.build(events.before(windows.test), IndexOptions())
        arrays = [getattr(measured.arrays, name) for name in measured.arrays.__slots__]
        return [examples.features, examples.labels, *arrays]

    for one, two in zip(learned(events, windows), learned(other, windows), strict=True):
        assert one.shape == two.shape and (one == two).all()
    later = Windows(windows.ranking, windows.test + 86_400, windows.end)
    assert any(
        one.shape != two.shape or (one != two).any()
        for one, two in zip(learned(events, later), learned(other, later), strict=True)
    )


def test_a_ranker_is_only_shipped_when_it_is_better(trained, monkeypatch, tmp_path):
    """Trees that were taught the opposite stay behind, and the curve serves."""
    learn = training.train_ranker

    def wrong(examples: Examples, objective: int, options: RankerOptions) -> str:
        return learn(replace(examples, labels=~examples.labels), objective, options)

    monkeypatch.setattr(training, "train_ranker", wrong)
    manifest = written(tmp_path, train(OPTIONS, silent))
    assert set(manifest["rankers"].values()) == {"fused"}
    assert {"clicks.json", "carts.json", "orders.json"} <= set(manifest["files"])
    assert all(gate["value"] <= 0 for gate in manifest["gates"].values())


def test_a_shop_of_clicks_alone(monkeypatch, tmp_path):
    events = simulate(20_000, seed=6)
    clicks = events.select(events.type == 0)
    monkeypatch.setattr(training, "read", lambda *_: Reading(clicks))
    manifest = written(tmp_path, train(TrainingOptions(events=tmp_path / "x.csv", teaching=500, measuring=300), silent))
    assert set(manifest["metrics"]["served"]) == {"recall@20_clicks", "weighted", "mrr@20"}
    assert manifest["rankers"]["carts"] == manifest["rankers"]["orders"] == "fused"
    assert manifest["options"]["events"] == "x.csv", "the file's name and not where it is"


def test_what_can_not_be_trained(otto):
    with pytest.raises(TrainingError, match="one of the two"):
        train(TrainingOptions(), silent)
    with pytest.raises(TrainingError, match="one of the two"):
        train(TrainingOptions(events=otto, simulated=5000), silent)
    with pytest.raises(TooFewEvents, match="there are 20 sessions; at least 100"):
        train(TrainingOptions(events=otto), silent)


def test_progress_of_each_stage_rises(trained):
    told: dict[str, list[float]] = {}
    train(OPTIONS, lambda stage, part: told.setdefault(stage, []).append(part))
    assert {"simulating", "examples", "rankers", "measuring"} <= set(told)
    for stage, parts in told.items():
        assert parts == sorted(parts) and parts[0] >= 0 and parts[-1] <= 1, stage
