"""The files of a forecaster, and those that come with Maru."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from maru.services.forecast.training import graph
from maru.services.forecast.training.bundle import BadBundle, Bundle, starter
from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.features import FEATURE_SETS
from maru.services.forecast.training.train import TrainedForecaster, TrainingOptions, train
from maru.services.forecast.training.windows import Windows


def test_written_and_read(tmp_path: Path, trained: TrainedForecaster):
    trained.write(tmp_path / "new" / "folder", "# Report")
    found = Bundle.read(tmp_path / "new" / "folder")
    assert (found.onnx, found.metadata) == (trained.onnx, trained.metadata)
    assert (found.metrics, found.params, found.sha256) == (trained.metrics, trained.params, trained.sha256)
    assert (tmp_path / "new" / "folder" / "report.md").read_text() == "# Report"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.onnx", None, "model.onnx can't be read"),
        ("metadata.json", None, "metadata.json can't be read"),
        ("model.onnx", b"", "model.onnx is not the graph"),
        ("metadata.json", b"", "metadata.json describes no forecaster"),
        ("metadata.json", b"[]", "metadata.json describes no forecaster"),
        ("metadata.json", b"{}", "metadata.json describes no forecaster"),
        ("metadata.json", b"\xff", "metadata.json describes no forecaster"),
    ],
)
def test_a_broken_bundle_is_refused(tmp_path: Path, trained: TrainedForecaster, file, content, said):
    trained.write(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(BadBundle, match=said) as caught:
        Bundle.read(tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_no_half_of_a_model_is_taken_for_one(tmp_path: Path, trained: TrainedForecaster):
    trained.write(tmp_path)
    for cut in range(0, len(trained.onnx), len(trained.onnx) // 64 + 1):
        (tmp_path / "model.onnx").write_bytes(trained.onnx[:cut])
        with pytest.raises(BadBundle):
            Bundle.read(tmp_path)


@pytest.fixture(scope="module")
def shipped() -> Path:
    folder = starter()
    assert folder is not None
    return folder


def test_the_starter_was_trained_on_the_file_beside_it(shipped: Path):
    bundle = Bundle.read(shipped)
    (csv,) = shipped.glob("*.csv")
    assert bundle.metadata["data_sha256"] == hashlib.sha256(csv.read_bytes()).hexdigest()
    assert bundle.metadata["data_sha256"] in (shipped / "PROVENANCE.md").read_text()
    assert (bundle.metadata["seq_len"], bundle.metadata["n_features"]) == (12, 18), "the document's defaults"


def test_the_starter_does_on_its_holdout_what_it_says(shipped: Path):
    bundle = Bundle.read(shipped)
    assert bundle.metrics["holdout_mase"] <= 1
    (csv,) = shipped.glob("*.csv")
    windows = Windows.cut(Candles.read(csv), FEATURE_SETS[bundle.metadata["feature_set"]], 12)
    holdout = windows[slice(-bundle.metadata["split"]["holdout"]["windows"], None)]
    error = np.abs(graph.answers(bundle.onnx, holdout.inputs).astype(np.float64) - holdout.next)
    assert error.mean() == pytest.approx(bundle.metrics["holdout_mae"], rel=1e-5)
    report = (shipped / "report.md").read_text()
    assert f"{bundle.metrics['holdout_mase']:.4f}" in report


def test_the_starter_can_be_made_again(shipped: Path):
    """By the command of its provenance. Another machine's arithmetic differs in the last digits."""
    (csv,) = shipped.glob("*.csv")
    again = train(TrainingOptions(csv), lambda stage, done, total: None)
    bundle = Bundle.read(shipped)
    assert again.params | {"epochs_run": 0} == bundle.params | {"epochs_run": 0}
    assert again.holdout.evaluation.mase == pytest.approx(bundle.metrics["holdout_mase"], abs=2e-3)
    assert json.loads(json.dumps(again.metadata["split"])) == bundle.metadata["split"]
