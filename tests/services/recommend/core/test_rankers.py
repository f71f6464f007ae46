"""Rankers, as trained and as opened again: what they say is what happens."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from maru.services.recommend.core.examples import Examples, gather_examples
from maru.services.recommend.core.features import CANDIDATES
from maru.services.recommend.core.rankers import Fused, Ranker, RankerOptions, open_rankers, train_ranker

FEW = RankerOptions(trees=40, learning_rate=0.1)


@pytest.fixture(scope="module")
def examples(index, visits) -> Examples:
    return gather_examples(index, visits, rate=0.3)


@pytest.fixture(scope="module")
def text(examples) -> str:
    return train_ranker(examples, 0, FEW)


@pytest.fixture
def ranker(text, tmp_path) -> Ranker:
    (tmp_path / "clicks.txt").write_text(text, encoding="utf-8")
    return Ranker.open(tmp_path / "clicks.txt")


def test_the_probabilities_are_those_of_all_candidates(index, visits, ranker):
    """Though only a part of them was learned from."""
    whole = gather_examples(index, visits, rate=1.0)
    scores, happened = ranker.score(whole.features), whole.labels[:, 0]
    assert scores.mean() == pytest.approx(happened.mean(), rel=0.1)
    top = whole.place < 5
    assert scores[top].mean() == pytest.approx(happened[top].mean(), rel=0.25)
    assert scores[happened].mean() > 2 * scores[~happened].mean()
    assert scores.min() >= 0 and scores.max() <= 1


def test_any_reader_of_the_text_is_calibrated(text, examples, ranker):
    booster = lightgbm.Booster(model_str=text)
    np.testing.assert_allclose(booster.predict(examples.features), ranker.score(examples.features), rtol=1e-6)


def test_the_same_trees_again(examples, text):
    assert train_ranker(examples, 0, FEW) == text


def test_growing_stops_when_it_no_longer_helps(examples):
    random = np.random.default_rng(0)
    noise = replace(examples, labels=random.random(examples.labels.shape) < 0.2)
    text = train_ranker(noise, 0, RankerOptions(trees=150, patience=5))
    assert text.count("\nTree=") < 100


def test_progress_is_told(examples):
    heard = []
    train_ranker(examples, 0, FEW, heard.append)
    assert heard == sorted(heard) and 0 < heard[-1] <= 1


@pytest.mark.parametrize("every", [False, True])
def test_nothing_to_tell_apart(examples, every):
    same = replace(examples, labels=np.full_like(examples.labels, every))
    with pytest.raises(ValueError, match="orders"):
        train_ranker(same, 2, FEW)


def test_a_model_of_other_features_is_refused(tmp_path):
    rows = np.random.default_rng(0).standard_normal((500, 4))
    data = lightgbm.Dataset(rows, rows[:, 0] > 0)
    model = lightgbm.train({"objective": "binary", "verbosity": -1, "use_missing": False}, data, 2)
    model.save_model(tmp_path / "clicks.txt")
    with pytest.raises(ValueError, match=r"clicks\.txt was not trained on the features"):
        Ranker.open(tmp_path / "clicks.txt")


def test_the_fused_order_as_probabilities(examples, tmp_path):
    fused = Fused.fit(examples, 0)
    fused.save(tmp_path / "carts.json")
    curve = Fused.open(tmp_path / "carts.json").score(np.zeros((CANDIDATES, 256), np.float32))
    assert (np.diff(curve) <= 0).all() and (curve > 0).all() and (curve <= 1).all()
    happened = np.bincount(examples.place[examples.labels[:, 0]], minlength=CANDIDATES) / examples.reached
    assert curve.sum() == pytest.approx(happened.sum(), rel=0.05)
    np.testing.assert_allclose(fused.score(np.zeros((7, 256), np.float32)), curve[:7], rtol=1e-6)


@pytest.mark.parametrize("told", ["{}", '{"curve": [0.5]}', '{"curve": [' + "0.1," * 99 + "0.2]}", "[]"])
def test_a_curve_that_is_none(told, tmp_path):
    (tmp_path / "clicks.json").write_text(told)
    with pytest.raises(ValueError, match=r"clicks\.json"):
        Fused.open(tmp_path / "clicks.json")


def test_a_folder_has_trees_or_a_curve_for_each(text, examples, tmp_path):
    (tmp_path / "clicks.txt").write_text(text, encoding="utf-8")
    Fused.fit(examples, 1).save(tmp_path / "carts.json")
    rankers = open_rankers(tmp_path)
    assert isinstance(rankers["clicks"], Ranker) and isinstance(rankers["carts"], Fused)
    assert set(rankers) == {"clicks", "carts"}
