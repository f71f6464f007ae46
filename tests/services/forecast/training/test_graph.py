"""The graph computes what numpy computes, and can't be made to say nonsense."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from maru.services.forecast.training import graph
from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.features import FEATURE_SETS, FeatureSet
from maru.services.forecast.training.lstm import Weights, beginning
from maru.services.forecast.training.scaling import Scaling
from maru.services.forecast.training.windows import Windows

HIDDEN = 16


def network(features: int, *, loud: float = 1.0) -> Weights:
    chance = np.random.default_rng(1)
    flat = beginning(features, HIDDEN, chance) + chance.normal(0, 0.2, len(beginning(features, HIDDEN, chance)))
    weights = Weights.of(flat.astype(np.float32), features, HIDDEN)
    weights.head[:] *= loud
    return weights


@pytest.fixture(scope="module")
def windows(candles: Candles) -> Windows:
    return Windows.cut(candles, FEATURE_SETS["btc18"], 12)


@pytest.fixture(scope="module")
def scaling(windows: Windows) -> Scaling:
    return Scaling.fit(windows[:500], FEATURE_SETS["btc18"])


@pytest.mark.parametrize("shrinkage", [1.0, 0.3])
def test_like_numpy(windows, scaling, shrinkage):
    weights = network(18, loud=4)
    answers = graph.answers(graph.build(scaling, weights, shrinkage, 12), windows.inputs)
    wanted = scaling.prices(weights.answers(scaling.inputs(windows.inputs)), windows.last, shrinkage)
    np.testing.assert_allclose(answers, wanted, rtol=1e-6)
    assert np.abs(np.log(answers / windows.last)).mean() > 1e-3, "nothing was forecast"


def test_like_numpy_in_double_precision(windows, scaling):
    weights = network(18, loud=4)
    x = windows.inputs.astype(np.float64)
    last = x[:, -1:, 3:4]
    volume = np.log1p(x[:, :, 4:5])
    seen = np.concatenate((np.log(x[:, :, :4] / last), volume - volume.mean(1, keepdims=True), x[:, :, 5:]), axis=2)
    seen = np.clip((seen - scaling.mean) / scaling.spread, -6, 6)
    moves = np.clip(scaling.target_spread * weights.answers(seen), -scaling.bound, scaling.bound)
    answers = graph.answers(graph.build(scaling, weights, 1.0, 12), windows.inputs)
    np.testing.assert_allclose(answers, last[:, 0, 0] * np.exp(moves), rtol=1e-6)


def test_features_in_another_order(windows, scaling):
    """A feature set whose prices do not come first: the same features, the same answers."""
    turned = np.arange(18)[::-1]
    btc = FEATURE_SETS["btc18"]
    features = FeatureSet("turned", btc.names[::-1], (17, 16, 15, 14), (13,), 14, btc.warmup, btc.compute)
    other = Scaling(features, scaling.mean[turned], scaling.spread[turned], scaling.target_spread, scaling.bound)
    weights = network(18)
    moved = Weights(weights.inputs[turned], weights.recurrent, weights.bias, weights.head, weights.offset)
    plain = graph.answers(graph.build(scaling, weights, 1.0, 12), windows.inputs)
    found = graph.answers(graph.build(other, moved, 1.0, 12), np.ascontiguousarray(windows.inputs[:, :, turned]))
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_without_belief_it_says_the_last_close_to_the_bit(windows, scaling):
    answers = graph.answers(graph.build(scaling, network(18, loud=1e6), 0.0, 12), windows.inputs)
    assert (answers == windows.last).all()


def test_no_forecast_goes_beyond_what_was_seen(windows, scaling):
    answers = graph.answers(graph.build(scaling, network(18, loud=1e6), 1.0, 12), windows.inputs)
    moves = np.abs(np.log(answers.astype(np.float64) / windows.last))
    assert scaling.bound * 0.99 < moves.max() < scaling.bound + 1e-6


def test_the_level_of_prices_and_volumes_makes_no_difference(windows, scaling):
    """Trained at 40,000, asked at 4,000,000: the forecast is the same in percent."""
    model = graph.build(scaling, network(18), 1.0, 12)
    dear = windows.inputs.copy()
    dear[:, :, :4] *= 100
    moves = graph.answers(model, windows.inputs) / windows.last
    np.testing.assert_allclose(graph.answers(model, dear) / (windows.last * 100), moves, rtol=1e-6)


@pytest.mark.parametrize(
    "value", [0.0, -1.0, 0.1, 1e-38, -1e30, 1e30], ids=["zero", "negative", "document's", "tiny", "-huge", "huge"]
)
def test_nonsense_gives_a_finite_answer(scaling, value):
    model = graph.build(scaling, network(18), 1.0, 12)
    assert np.isfinite(graph.answers(model, np.full((1, 12, 18), value, np.float32))).all()


def test_nonsense_in_one_place_gives_a_finite_answer(windows, scaling):
    model = graph.build(scaling, network(18), 1.0, 12)
    for value in (0.0, -3.0, 1e30, -1e30, 1e-40):
        hurt = np.repeat(windows.inputs[:1], 12 * 18, axis=0)
        hurt.reshape(12 * 18, -1)[np.arange(12 * 18), np.arange(12 * 18)] = value
        assert np.isfinite(graph.answers(model, hurt)).all()


def test_one_file_that_describes_itself(scaling):
    content = graph.build(scaling, network(18), 1.0, 12, interval='"1h"')
    model = onnx.load_from_string(content)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"interval": '"1h"'}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (given,), (made,) = model.graph.input, model.graph.output
    assert [size.dim_value or size.dim_param for size in given.type.tensor_type.shape.dim] == ["batch", 12, 18]
    assert [size.dim_value or size.dim_param for size in made.type.tensor_type.shape.dim] == ["batch", 1]
    assert content == graph.build(scaling, network(18), 1.0, 12, interval='"1h"')


def test_answers_do_not_depend_on_the_batch(windows, scaling):
    model = graph.build(scaling, network(18), 1.0, 12)
    together = graph.answers(model, windows.inputs[:40])
    alone = [graph.answers(model, windows.inputs[place : place + 1])[0] for place in range(40)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
