from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from tests.runtimes.registry.graphs import built, centred_on_the_batch, graph, mean_of_all, one_for_all, slow

from maru.engine.errors import InputError, ModelFailed, ModelLoadFailed
from maru.engine.events import Events
from maru.engine.manager import Manager
from maru.engine.model import ModelSpec, Prepared
from maru.engine.repository import Repository
from maru.engine.types import Limits
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.registry.names import SHA256
from maru.runtimes.registry.types import RegisteredVersion
from maru.services.forecast.model import ForecastCodec, Forecaster, canonical

LIMITS = Limits(max_batch_size=64)
RNG = np.random.default_rng(0)


def files(root: Path, content: bytes, metadata: dict[str, Any] | None = None) -> Path:
    """A model's folder as MLflow leaves it."""
    root.mkdir(parents=True)
    flavor = {"data": "model.onnx", "code": None}
    flavors = {"python_function": {**flavor, "loader_module": "mlflow.onnx"}, "onnx": flavor}
    (root / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "metadata": metadata}))
    (root / "model.onnx").write_bytes(content)
    return root


def spec_of(folder: Path, version: str = "1", seq_len: int = 12, n_features: int = 18, **tags: str) -> ModelSpec:
    registered = RegisteredVersion("BTC", version, "models:/m-1", tags=tags)
    return Forecaster.spec(registered, folder, seq_len=seq_len, n_features=n_features, limits=LIMITS)


def opened(folder: Path, **options: Any) -> Forecaster:
    model = spec_of(folder, **options).load()
    model.warm()
    assert isinstance(model, Forecaster)
    return model


def window(seq_len: int = 12, n_features: int = 18) -> Any:
    return RNG.normal(size=(seq_len, n_features)).astype(np.float32)


@pytest.mark.parametrize(
    "content",
    [
        graph(2.5),
        graph(2.5, flat=True),
        graph(2.5, batch=1),
        graph(2.5, batch=1, flat=True),
        graph(2.5, kind=TensorProto.DOUBLE),
    ],
    ids=["column", "flat", "one at a time", "one at a time, flat", "float64"],
)
def test_a_window_is_answered_whatever_form_the_graph_has(tmp_path: Path, content: bytes) -> None:
    model = opened(files(tmp_path / "model", content))
    windows = [window() for _ in range(5)]
    expected = [float(each[-1, 3]) + 2.5 for each in windows]
    assert model.predict(windows) == pytest.approx(expected, rel=1e-6)
    assert model.predict(windows[:1]) == pytest.approx(expected[:1], rel=1e-6)
    assert model.inline
    assert model.memory_bytes > 0


def test_neighbours_in_a_batch_make_no_difference(tmp_path: Path) -> None:
    model = opened(files(tmp_path / "model", centred_on_the_batch()))
    assert model.predict([window() + place for place in range(4)]) == pytest.approx([0.0] * 4, abs=1e-6)


def test_a_slow_model_is_kept_off_the_event_loop(tmp_path: Path) -> None:
    model = opened(files(tmp_path / "model", slow()))
    assert not model.inline
    given = window()
    assert model.predict([given]) == pytest.approx([float(given.mean())], abs=1e-5)


def test_what_the_model_says_of_itself_is_shown(tmp_path: Path) -> None:
    facts = {"features": [f"f{place}" for place in range(18)], "close_index": 3, "interval": "1h", "other": object}
    folder = files(tmp_path / "model", graph(), {**facts, "other": "not shown"})
    model = opened(folder, version="7")
    shown = model.metadata
    assert {key: shown[key] for key in ("name", "version", "source", "close_index", "interval")} == {
        "name": "BTC", "version": "7", "source": "models:/m-1", "close_index": 3, "interval": "1h",
    }  # fmt: skip
    assert shown["features"] == facts["features"]
    assert shown["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 12, 18]}]
    assert shown["outputs"] == [{"name": "pred_btc_close_next", "datatype": "FP32", "shape": [-1, 1]}]
    assert shown["parameters"]["features"] == facts["features"]
    assert "other" not in shown["parameters"] and "not shown" not in str(shown)


@pytest.mark.parametrize(
    "metadata",
    [
        {"features": ["f"] * 18},
        {"features": [f"f{place}" for place in range(17)]},
        {"features": "open,high"},
        {"features": [1] * 18},
        {"features": [""] * 18},
        {"close_index": 18},
        {"close_index": -1},
        {"close_index": True},
        {"close_index": "3"},
        {"interval": 1},
        {"interval": "x" * 100},
    ],
)
def test_a_model_that_describes_another_window_is_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    with pytest.raises((BadModelFile, UnsupportedModel)):
        spec_of(files(tmp_path / "model", graph(), metadata))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (graph(seq_len=24), r"\[N, 24, 18\], and \[N, 12, 18\] is served"),
        (graph(n_features=5), r"\[N, 12, 5\]"),
        (graph(batch=64), r"\[64, 12, 18\]"),
        (built([helper.make_node("Identity", ["x"], ["y"])], [], ["N", 216], ["N", 216]), r"\[N, 216\]"),
        (built([helper.make_node("Identity", ["x"], ["y"])], [], [], []), r"takes \[\]"),
        (
            built([helper.make_node("Identity", ["x"], ["y"])], [], ["N", 12, 18], ["N", 12, 18], TensorProto.INT64),
            "neither float32 nor float64",
        ),
    ],
)
def test_a_graph_of_another_shape_is_refused_with_both(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        spec_of(files(tmp_path / "model", content))


@pytest.mark.parametrize(
    "content",
    [
        mean_of_all(math.nan),
        mean_of_all(math.inf),
        built([helper.make_node("Identity", ["x"], ["y"])], [], ["N", 12, 18], ["N", 12, 18]),
        one_for_all()[:-20],
        built([helper.make_node("Evil", ["x"], ["y"], domain="custom")], [], ["N", 12, 18], ["N"]),
        built([helper.make_node("Add", ["x", "missing"], ["y"])], [], ["N", 12, 18], ["N"]),
        built([], [], ["N", 12, 18], ["N"]),
        b"",
        b"\x80\x04\x95pickle",
    ],
    ids=[
        "nan",
        "infinity",
        "many numbers",
        "cut off",
        "unknown operator",
        "unknown input",
        "empty",
        "no bytes",
        "pickle",
    ],
)
def test_a_model_that_can_not_forecast_is_not_opened(tmp_path: Path, content: bytes) -> None:
    with pytest.raises((ModelLoadFailed, ModelFailed)) as failure:
        opened(files(tmp_path / "model", content))
    assert str(tmp_path) not in str(failure.value) and "Traceback" not in str(failure.value)


def test_one_number_for_a_whole_batch_is_asked_for_window_by_window(tmp_path: Path) -> None:
    model = opened(files(tmp_path / "model", one_for_all()))
    windows = [window() for _ in range(3)]
    assert model.predict(windows) == pytest.approx([float(each.mean()) for each in windows], abs=1e-5)


def test_a_window_without_an_answer_fails_alone(tmp_path: Path) -> None:
    logarithm = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Log", ["mean"], ["y"]),
    ]
    model = opened(files(tmp_path / "model", built(logarithm, [], ["N", 12, 18], ["N"])))
    one = np.ones((12, 18), np.float32)
    good, negative, nothing, after = model.predict([one, -one, 0 * one, one])
    assert (good, after) == (0.0, 0.0)
    assert isinstance(negative, ModelFailed) and isinstance(nothing, ModelFailed)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_window_that_is_none_is_refused_alone(tmp_path: Path, wrong: float) -> None:
    model = opened(files(tmp_path / "model", graph()))
    holed = window()
    holed[5, 7] = wrong
    first, second, third, fourth = model.prepare([holed, window(11), window(12, 17), window()])
    assert all(isinstance(each, InputError) for each in (first, second, third))
    assert isinstance(fourth, Prepared)
    assert "[12, 18]" in str(second) and "[11, 18]" in str(second)


@pytest.mark.parametrize("sixty_fourth", range(64))
def test_a_graph_that_breaks_off_is_not_opened(tmp_path: Path, sixty_fourth: int) -> None:
    whole = graph(1.0)
    digest = spec_of(files(tmp_path / "whole", whole)).ref.digest
    folder = files(tmp_path / "model", whole[: len(whole) * sixty_fourth // 64])
    with pytest.raises(BadModelFile):
        spec_of(folder, **{SHA256: digest})
    with pytest.raises((ModelLoadFailed, ModelFailed)):  # nor when the registry has no checksum of it
        opened(folder)


def test_the_digest_is_that_of_the_graph(tmp_path: Path) -> None:
    one, same, other = (
        spec_of(files(tmp_path / str(number), content))
        for number, content in enumerate((graph(1.0), graph(1.0), graph(2.0)))
    )
    assert one.ref.digest == same.ref.digest != other.ref.digest
    assert str(one.ref) == "BTC@1"


def test_weights_beside_the_graph_are_used(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(graph(4.0))
    tensor = next(each for each in model.graph.initializer if each.name == "more")
    tensor.CopyFrom(helper.make_tensor("more", TensorProto.FLOAT, [1], [0.0]))
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    folder = files(tmp_path / "model", model.SerializeToString())
    (folder / "weights.data").write_bytes(np.array([4.0], "<f4").tobytes())
    given = window()
    assert opened(folder).predict([given]) == pytest.approx([float(given[-1, 3]) + 4.0], rel=1e-5)


@pytest.mark.parametrize(
    "bad",
    [mean_of_all(math.nan), one_for_all()[:-20], built([], [], ["N", 12, 18], ["N"])],
    ids=["nan", "cut", "empty"],
)
def test_what_was_loaded_serves_on_when_a_swap_fails(tmp_path: Path, bad: bytes) -> None:
    async def swapped() -> tuple[list[Any], list[Any]]:
        repository = Repository()
        manager = Manager(repository, Events(), asyncio.get_running_loop().time)
        await manager.swap(spec_of(files(tmp_path / "good", graph(1.0))))
        with pytest.raises(ModelLoadFailed):
            await manager.swap(spec_of(files(tmp_path / "bad", bad), version="2"))
        serving = repository.resolve("BTC")
        resident = manager.get(serving.ref)
        assert resident is not None and len(list(manager)) == 1
        given = window()
        answers = resident.model.predict([given])
        await manager.close()
        return list(answers), [float(given[-1, 3]) + 1.0]

    try:
        answers, expected = asyncio.run(swapped())
    except BadModelFile:  # before it came to a swap
        return
    assert answers == pytest.approx(expected, rel=1e-6)


def test_a_forecast_survives_the_cache() -> None:
    codec = ForecastCodec()
    for value in (45_000.5, -0.0, 1e-300, 123456.789):
        assert codec.decode(codec.encode(value)) == value
    for data in (b"", b"fct1", b"emb1" + bytes(8), codec.encode(1.0) + b"x", codec.encode(1.0)[:-1]):
        with pytest.raises(ValueError, match="not a forecast"):
            codec.decode(data)


def test_windows_have_the_same_key_only_when_they_are_the_same() -> None:
    given = window()
    changed = given.copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(10))
    keys = [canonical(each) for each in (given, changed, given.reshape(18, 12), given.reshape(6, 36))]
    assert len(set(keys)) == 4
    assert canonical(given) == canonical(np.asfortranarray(given))
