"""The torch trainer, in a Python that has torch: MARU_REFERENCE_PYTHON names it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import maru

SCRIPT = """
import json, sys
import numpy as np, torch
from maru.services.forecast.training import lstm, torch_lstm
made = {}
for seed, n in ((0, 2000), (1, 500), (2, 500)):
    x = np.random.default_rng(seed).normal(0, 1, (n, 6, 2)).astype(np.float32)
    made[seed] = x, np.tanh(x[:, 2, 0])
schedule = lstm.Schedule(epochs=40, patience=40, hidden=8, batch=64, rate=1e-2)
epochs = []
before = torch.random.get_rng_state()
found = {}
for name, train in (("torch", torch_lstm.train), ("numpy", lstm.train)):
    weights = train(made[0], made[1], schedule, lambda: epochs.append(name))
    inputs, wanted = made[2]
    found[name] = float(((weights.answers(inputs) - wanted) ** 2).mean() / wanted.var())
quick = lstm.Schedule(epochs=1, hidden=8, batch=64)
first, again = (torch_lstm.train(made[0], made[1], quick, lambda: None) for _ in range(2))
found["repeats"] = bool((first.inputs == again.inputs).all())
found["untouched"] = bool((before == torch.random.get_rng_state()).all())
memory, head = torch.nn.LSTM(2, 8, batch_first=True), torch.nn.Linear(8, 1)
with torch.no_grad():
    wanted = head(memory(torch.from_numpy(inputs))[0][:, -1])[:, 0].numpy()
found["worst"] = float(np.abs(torch_lstm._weights(memory, head).answers(inputs) - wanted).max())
found["epochs"] = epochs.count("torch")
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    python = os.environ.get("MARU_REFERENCE_PYTHON")
    if not python:
        pytest.skip("MARU_REFERENCE_PYTHON names no Python that has torch")
    source = str(Path(maru.__file__).parents[1])
    done = subprocess.run([python, "-c", SCRIPT], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_torch_learns_what_numpy_learns(found):
    assert found["torch"] < 0.05 and found["numpy"] < 0.05
    assert found["epochs"] == 40


def test_its_weights_mean_the_same(found):
    assert found["worst"] < 1e-6


def test_it_repeats_and_leaves_the_programs_chance_alone(found):
    assert found["repeats"] and found["untouched"]
