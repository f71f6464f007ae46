"""A training, with a Python that has torch: MARU_REFERENCE_PYTHON names it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from maru.services.llm.training.errors import TrainingError
from maru.services.llm.training.train import TrainedModel, TrainingOptions, train

from .conftest import greedy


def options(tale: Path, python: Path, **changes: object) -> TrainingOptions:
    chosen = {"size": "tiny", "vocabulary": 400, "epochs": 6.0, "batch": 1024, "python": python}
    return TrainingOptions(tale, **chosen | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tale: Path, torch_python: Path) -> TrainedModel:
    return train(options(tale, torch_python), lambda *told: None)


def test_it_learns(trained: TrainedModel) -> None:
    assert trained.measured.loss < trained.measured.unigram / 3
    assert trained.log[-1]["loss"] < trained.log[0]["loss"] / 3
    assert trained.measured.perplexity == pytest.approx(math.exp(trained.measured.loss))


def test_what_it_learnt_is_in_the_file_that_llama_cpp_reads(trained: TrainedModel, tmp_path: Path) -> None:
    """It goes on as the text does, also with 8 bits a weight."""
    for kind in ("F32", "Q8_0"):
        trained.write(tmp_path / f"{kind}.gguf", kind)
        (answer,) = greedy(tmp_path / f"{kind}.gguf", ["Every cat sees the moon in the"], 2)
        assert answer["choices"][0]["text"].startswith(" morning."), kind
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gguf", ".gguf"]


def test_equal_options_give_equal_weights(trained: TrainedModel, tale: Path, torch_python: Path) -> None:
    again = train(options(tale, torch_python), lambda *told: None)
    assert again.log == trained.log
    assert all(np.array_equal(again.weights[name], values) for name, values in trained.weights.items())


def test_progress_is_told_to_the_end(tale: Path, torch_python: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = train(options(tale, torch_python, epochs=0.5, seed=1), lambda *one: told.append(one))
    steps = len(found.log)
    assert [done for stage, done, total in told if stage == "training"] == list(range(steps + 1))
    assert found.log[-1]["step"] == steps


def test_without_torch_it_says_what_to_do(tale: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # no site-packages, so no torch
    bare.chmod(0o755)
    with pytest.raises(TrainingError, match=r"has no torch: pip install 'maru\[torch\]'"):
        train(options(tale, bare), lambda *told: None)
    with pytest.raises(TrainingError, match="can't be run"):
        train(options(tale, tmp_path / "none"), lambda *told: None)


def test_what_the_model_is_written_with_is_looked_for_first(tale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maru.services.llm.training.train.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="gguf is not installed"):
        train(options(tale, Path(sys.executable)), lambda *told: None)


def test_a_training_that_fails_says_why_and_leaves_nothing(tale: Path, tmp_path: Path) -> None:
    """An interpreter that seems to have torch, and doesn't."""
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\n[ "$2" = -c ] && exit 0\necho "no luck today" >&2\nexit 3\n')
    broken.chmod(0o755)
    before = {path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("maru-train-*")}
    with pytest.raises(TrainingError, match="the training failed: no luck today"):
        train(options(tale, broken), lambda *told: None)
    after = {path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("maru-train-*")}
    assert after <= before


_RUNS = """
import sys
from pathlib import Path
from maru.services.llm.training.train import TrainingOptions, train
text, python = map(Path, sys.argv[1:])
options = TrainingOptions(text, size="tiny", vocabulary=400, epochs=10_000.0, batch=1024, python=python)
train(options, lambda *told: None)
"""


def test_it_ends_with_whoever_started_it(tale: Path, torch_python: Path, tmp_path: Path) -> None:
    """However that ends, and whatever it is at: here, it has begun to import torch. And it leaves nothing."""
    command = [sys.executable, "-c", _RUNS, str(tale), str(torch_python)]
    starter = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)})
    until = time.monotonic() + 60
    while not (running := _fitting(starter.pid)):
        assert starter.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in running):
        assert time.monotonic() < until, "it goes on alone"
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())


def _fitting(parent: int) -> list[int]:
    """The processes of that parent which run the program."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    pids = map(int, children.read_text().split()) if children.exists() else ()
    return [pid for pid in pids if b"fitting.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": "huge"}, "no size huge"),
        ({"vocabulary": 100}, "at least 261 tokens"),
        ({"epochs": 0.0}, "more than no epoch"),
    ],
)
def test_what_can_not_be_chosen_is_said(tale: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        train(options(tale, Path(sys.executable), **changes), lambda *told: None)
