"""Our walk through LightGBM's trees, beside LightGBM's own."""

from __future__ import annotations

import re

import lightgbm
import numpy as np
import pytest

from maru.services.recommend.core.trees import Forest, predict, sums


def trained(trees: int, leaves: int, columns: int = 12, seed: int = 0, **parameters: object) -> lightgbm.Booster:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((4000, columns)).astype(np.float32)
    rows[:, 1] = np.round(rows[:, 1])
    labels = rows[:, 0] + rows[:, 1] * rows[:, 2] + random.standard_normal(4000) > 1
    chosen = {"objective": "binary", "num_leaves": leaves, "num_threads": 1, "verbosity": -1, "use_missing": False}
    return lightgbm.train(chosen | parameters, lightgbm.Dataset(rows, labels), trees)


@pytest.mark.parametrize(("trees", "leaves"), [(1, 2), (40, 15), (120, 63)])
def test_the_same_sums_bit_for_bit(trees, leaves):
    booster = trained(trees, leaves)
    forest = Forest.parse(booster.model_to_string())
    rows = np.random.default_rng(9).standard_normal((3000, 12)).astype(np.float32)
    rows[:, 1] = np.round(rows[:, 1])
    # And upon the thresholds themselves, from both sides.
    at = np.resize(forest.threshold[np.isfinite(forest.threshold)], 1000)
    rows[:1000, :] = at[:, None]
    rows[1000:2000, :] = np.nextafter(at, np.float32(np.inf))[:, None]
    # LightGBM takes what is nearer to zero than this for zero.
    rows[np.abs(rows) < 1e-30] = 0
    assert (sums(rows, forest) == booster.predict(rows, raw_score=True)).all()
    np.testing.assert_allclose(predict(rows, forest), booster.predict(rows), rtol=1e-6)


def test_a_tree_that_tells_nothing_apart():
    rows = np.zeros((200, 3), np.float32)
    labels = np.arange(200) < 50
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "use_missing": False}, lightgbm.Dataset(rows, labels), 3
    )
    forest = Forest.parse(booster.model_to_string())
    assert predict(rows[:2], forest) == pytest.approx([0.25, 0.25], abs=1e-6)
    assert (sums(rows, forest) == booster.predict(rows, raw_score=True)).all()


def test_no_rows():
    assert predict(np.zeros((0, 12), np.float32), Forest.parse(trained(3, 4).model_to_string())).shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "x" + text, "text format"),
        (lambda text: "", "text format"),
        (lambda text: text.replace("objective=binary sigmoid:1", "objective=regression"), "probabilities"),
        (lambda text: re.sub(r"left_child=\S+ ", "left_child=0 ", text, count=1), "leads back"),
        (lambda text: re.sub(r"leaf_value=.*", "leaf_value=1 2 3 4 5", text, count=1), "broken"),
        (lambda text: re.sub(r"threshold=.*\n", "", text, count=1), "broken"),
        (lambda text: re.sub(r"split_feature=\d+", "split_feature=99", text, count=1), "plain numeric"),
        (lambda text: re.sub(r"decision_type=\d+", "decision_type=10", text, count=1), "plain numeric"),
        (lambda text: re.sub(r"num_cat=0", "num_cat=1", text, count=1), "categorical"),
        (lambda text: re.sub(r"num_leaves=\d+", "num_leaves=x", text, count=1), "invalid literal"),
    ],
)
def test_what_is_no_such_model(change, message):
    text = trained(2, 6).model_to_string()
    with pytest.raises(ValueError, match=message):
        Forest.parse(change(text))


def test_a_model_that_knows_of_missing_values_is_refused():
    rows = np.random.default_rng(0).standard_normal((2000, 3)).astype(np.float32)
    labels = rows[:, 0] > 0
    rows[::7] = np.nan
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(rows, labels), 2)
    with pytest.raises(ValueError, match="plain numeric"):
        Forest.parse(booster.model_to_string())
