"""A training as a whole: what it finds, what it does not find, and what it may not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest

from maru.services.forecast.training import graph
from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.errors import TrainingError
from maru.services.forecast.training.features import FEATURE_SETS
from maru.services.forecast.training.train import TrainedForecaster, TrainingOptions, train
from maru.services.forecast.training.windows import Windows


def quietly(csv: Path, **options: object) -> TrainedForecaster:
    return train(TrainingOptions(csv, **options), lambda stage, done, total: None)  # type: ignore[arg-type]


def test_what_can_be_known_is_found(trained):
    """With an echo of 0.5, knowing it whole gives √(1 - 0.25) = 0.866 of persistence's error."""
    assert [report.name for report in trained.folds] == ["fold 1", "fold 2", "fold 3", "holdout"]
    for report in trained.folds:
        assert report.evaluation.mase < 0.97, report.name
    holdout = trained.holdout
    assert 0.83 < holdout.evaluation.mase < 0.93 and holdout.shrinkage > 0.5
    assert holdout.evaluation.rmse_skill > 0.05
    assert holdout.evaluation.directions is not None and holdout.evaluation.directions.low > 0.55
    assert holdout.evaluation.diebold_mariano is not None and holdout.evaluation.diebold_mariano.p_value < 0.001


@pytest.mark.parametrize("seed", [0, 3, 9])
def test_a_random_walk_is_left_alone(tmp_path, market, written, seed):
    found = quietly(written(tmp_path / "walk.csv", market(4000, seed=seed)), epochs=8)
    assert found.holdout.evaluation.mase <= 1.0005
    assert found.holdout.evaluation.mase == pytest.approx(1, abs=2e-3)


def test_what_it_says_of_itself_is_so(trained):
    said = trained.metadata
    assert said["features"] == list(FEATURE_SETS["btc18"].names)
    assert (said["seq_len"], said["n_features"], said["close_index"], said["interval"]) == (12, 18, 3, "1h")
    assert len(said["data_sha256"]) == len(said["features_sha256"]) == 64
    assert said["data"]["candles"] == 4000 and said["data"]["from"] == "2024-01-01T00:00:00+00:00"
    ends = [said["split"][name][end] for name in ("train", "validation", "holdout") for end in ("from", "to")]
    assert ends == sorted(ends) and len(set(ends)) == 6
    assert trained.metrics["holdout_mase"] == trained.holdout.evaluation.mase
    assert trained.metrics["fold_2_mase"] == trained.folds[1].evaluation.mase
    assert json.loads(json.dumps([said, trained.metrics, trained.params])) == [said, trained.metrics, trained.params]
    inside = {entry.key: entry.value for entry in onnx.load_from_string(trained.onnx).metadata_props}
    assert json.loads(inside["features"]) == said["features"]


def test_the_figures_are_those_of_the_model_that_is_kept(tmp_path, trained, market, written):
    """Anybody can measure it again, from the file and what the metadata say of the split."""
    candles = Candles.read(written(tmp_path / "echo.csv", market(4000, echo=0.5)))
    assert candles.sha256 == trained.metadata["data_sha256"]
    windows = Windows.cut(candles, FEATURE_SETS["btc18"], 12)
    begins = datetime.fromisoformat(trained.metadata["split"]["holdout"]["from"]).timestamp()
    holdout = windows[slice(int(np.searchsorted(windows.time, begins)), None)]
    assert len(holdout) == trained.metadata["split"]["holdout"]["windows"]
    error = np.abs(graph.answers(trained.onnx, holdout.inputs).astype(np.float64) - holdout.next).mean()
    naive = np.abs(holdout.last.astype(np.float64) - holdout.next).mean()
    assert error / naive == pytest.approx(trained.holdout.evaluation.mase, rel=1e-9)


def test_the_holdout_teaches_nothing(tmp_path, market, written):
    """The same past with another future is the same model."""
    rows = market(2000, echo=0.5)
    first = quietly(written(tmp_path / "one.csv", rows), epochs=2)
    other = [row[:1] + [figure * (1 + 0.3 * (bar % 2)) for figure in row[1:]] for bar, row in enumerate(rows[1700:])]
    second = quietly(written(tmp_path / "two.csv", rows[:1700] + other), epochs=2)
    candles = Candles.read(tmp_path / "one.csv")
    asked = Windows.cut(candles, FEATURE_SETS["btc18"], 12).inputs
    assert first.metadata["scaling"] == second.metadata["scaling"]
    assert (graph.answers(first.onnx, asked) == graph.answers(second.onnx, asked)).all()
    assert first.holdout.evaluation.mase != second.holdout.evaluation.mase


def test_equal_options_give_equal_models(tmp_path, market, written):
    csv = written(tmp_path / "echo.csv", market(1000, echo=0.5))
    first, again, other = (quietly(csv, epochs=2, seed=seed) for seed in (1, 1, 2))
    assert first.onnx == again.onnx and first.metadata == again.metadata
    assert first.onnx != other.onnx


def test_other_windows_and_other_bars(tmp_path, market, written):
    """Days instead of hours, 20 to a window, with two gaps."""
    days = [[(row[0] - 1_704_067_200) * 24 + 1e9 // 86_400 * 86_400, *row[1:]] for row in market(1500, echo=0.5)]
    found = quietly(written(tmp_path / "days.csv", days[:500] + days[510:900] + days[901:]), epochs=2, seq_len=20)
    assert (found.metadata["interval"], found.metadata["seq_len"]) == ("1d", 20)
    assert found.metadata["data"]["runs"] == 3 and "the candles have 2 gaps" in found.notes[0]
    assert graph.answers(found.onnx, np.ones((3, 20, 18), np.float32)).shape == (3,)


def test_progress_is_told_from_nothing_to_all(tmp_path, market, written):
    told: dict[str, list[tuple[int, int]]] = {}
    train(
        TrainingOptions(written(tmp_path / "walk.csv", market(700)), epochs=3),
        lambda stage, done, total: told.setdefault(stage, []).append((done, total)),
    )
    assert list(told) == ["rehearsal", "fold 1", "fold 2", "fold 3", "holdout"]
    for steps in told.values():
        assert steps[0] == (0, 3) and steps[-1] == (3, 3) and steps == sorted(steps)


def test_a_market_that_stops_moving(tmp_path, market, written):
    rows = market(1000)
    halted = [[row[0], *rows[699][1:]] for row in rows[700:]]
    for row in halted:
        row[2] = row[1] = row[3] = row[4]
    with pytest.raises(TrainingError, match=r"never moves from 2024-02-0\d .* UTC on"):
        quietly(written(tmp_path / "halt.csv", rows[:700] + halted))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"features": "btc19"}, "no feature set btc19; there are: btc18"),
        ({"trainer": "jax"}, "no trainer jax; there are: numpy, torch"),
        ({"seq_len": 0}, "at least one step"),
        ({"epochs": 0}, "at least one step"),
        ({"seed": -1}, "a seed is not below zero"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, said):
    with pytest.raises(TrainingError, match=said):
        quietly(tmp_path / "not read", **options)


def test_the_split_is_told_in_dates(trained):
    holdout = trained.holdout
    assert holdout.begins.tzinfo is UTC and holdout.begins < holdout.ends
    assert trained.metadata["split"]["holdout"]["from"] == holdout.begins.isoformat()
    assert all(a.ends < b.begins for a, b in zip(trained.folds, trained.folds[1:], strict=False))


def test_torch_is_asked_for_only_by_name(tmp_path, market: Callable[..., object], written, monkeypatch):
    """Where torch is not installed, the message says what to do."""
    monkeypatch.setattr("maru.services.forecast.training.trainers.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="torch is not installed: pip install torch"):
        quietly(written(tmp_path / "walk.csv", market(700)), trainer="torch")  # type: ignore[arg-type]
