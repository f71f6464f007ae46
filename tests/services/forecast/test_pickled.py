"""Models that are Python code, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtimes.registry.graphs import graph

from maru.engine.errors import ModelFailed, ModelNotReady
from maru.engine.model import Model
from maru.engine.types import Limits
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.registry.types import RegisteredVersion
from maru.services.forecast.model import Forecaster
from maru.services.forecast.pickled import ChildFailed, Host, PickledForecaster, any_spec

from .test_model import files, window

MAKE = Path(__file__).with_name("make_pyfuncs.py")
VERSION = RegisteredVersion("BTC", "1", "models:/m-1")
HOST = Host(load_s=120, answer_s=60)


def made(folder: Path, kind: str, python: str = sys.executable) -> str:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [python, str(MAKE), str(folder), kind], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def opened(folder: Path, host: Host = HOST) -> Model:
    model = any_spec(VERSION, folder, seq_len=12, n_features=18, limits=Limits(), host=host).load()
    try:
        model.warm()
    except BaseException:
        model.close()
        raise
    return model


def asking(what: int) -> Any:
    asked = window()
    asked[0, 0] = what
    return asked


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def ends(pid: int) -> bool:
    """Whether a process is gone, or nothing but a name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def strange_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strange") / "model"
    made(folder, "strange")
    return folder


@pytest.fixture(scope="module")
def shared(strange_folder: Path) -> Iterator[PickledForecaster]:
    """For tests after which it goes on."""
    os.environ["API_KEYS"] = "secret"
    model = opened(strange_folder)
    del os.environ["API_KEYS"]
    assert isinstance(model, PickledForecaster)
    yield model
    model.close()


def test_each_window_is_answered(shared: PickledForecaster) -> None:
    windows = [window() for _ in range(20)]
    assert shared.predict(windows) == pytest.approx([float(each[-1, 3]) + 1.0 for each in windows], rel=1e-6)
    assert shared.memory_bytes > 20 * 2**20
    assert not shared.inline
    assert shared.metadata["platform"] == "mlflow_pyfunc"
    assert shared.metadata["features"] == [f"f{place}" for place in range(18)]


@pytest.mark.parametrize("what", [103, 104, 106, 107])
def test_what_goes_wrong_with_one_window_fails_it_alone(shared: PickledForecaster, what: int) -> None:
    child = shared._child
    good = window()
    before, bad, after = shared.predict([good, asking(what), good])
    assert before == after == pytest.approx(float(good[-1, 3]) + 1.0, rel=1e-6)
    assert isinstance(bad, ModelFailed) and "person" not in str(bad)
    assert shared._child is child


def test_what_a_model_prints_goes_nowhere(shared: PickledForecaster, capfd: pytest.CaptureFixture[str]) -> None:
    noisy = asking(105)
    assert shared.predict([noisy]) == pytest.approx([float(noisy[-1, 3]) + 1.0], rel=1e-6)
    assert capfd.readouterr() == ("", "")


def test_a_model_sees_none_of_our_secrets(shared: PickledForecaster) -> None:
    assert shared.predict([asking(109)]) == [0.0]


@pytest.mark.parametrize("what", [101, 102, 110], ids=["exit", "hang", "segmentation fault"])
def test_a_crash_fails_its_batch_and_the_next_is_answered(strange_folder: Path, what: int) -> None:
    model = opened(strange_folder, Host(load_s=120, answer_s=60))
    assert isinstance(model, PickledForecaster) and model._child is not None
    try:
        if what == 102:
            model._child._host = Host(answer_s=0.5)
        good = window()
        before, bad, after = model.predict([good, asking(what), good])
        assert isinstance(before, float)
        assert isinstance(bad, ModelFailed) and isinstance(after, ModelFailed)
        while isinstance((answer := model.predict([good])[0]), ModelNotReady):
            time.sleep(0.05)
        assert answer == before
    finally:
        model.close()


def test_a_process_that_ends_between_requests_is_started_again(strange_folder: Path) -> None:
    model = opened(strange_folder)
    assert isinstance(model, PickledForecaster) and model._child is not None
    try:
        os.kill(model._child._process.pid, 9)
        wait_for(lambda: model._child is None or not model._child.alive())
        (refused,) = model.predict([window()])
        assert isinstance(refused, ModelNotReady)
        wait_for(lambda: isinstance(model.predict([window()])[0], float))
    finally:
        model.close()


def test_closing_ends_the_process_and_what_it_started(strange_folder: Path) -> None:
    model = opened(strange_folder)
    assert isinstance(model, PickledForecaster) and model._child is not None
    child = model._child._process.pid
    (grandchild,) = model.predict([asking(108)])
    assert isinstance(grandchild, float) and not ends(int(grandchild))
    model.close()
    wait_for(lambda: ends(child) and ends(int(grandchild)))


def test_closing_while_it_is_started_again_leaves_no_process(strange_folder: Path) -> None:
    model = opened(strange_folder)
    assert isinstance(model, PickledForecaster)
    model.predict([asking(101)])
    wait_for(lambda: model._starting is not None)
    again = model._starting
    assert again is not None
    model.close()
    wait_for(lambda: ends(again._process.pid), 10)


def test_a_child_ends_with_its_parent(strange_folder: Path) -> None:
    script = (
        "import sys, os, threading; from pathlib import Path\n"
        "from tests.services.forecast.test_pickled import opened, asking\n"
        "model = opened(Path(sys.argv[1])); print(model._child._process.pid, flush=True)\n"
        "threading.Thread(target=model.predict, args=([asking(102)],)).start(); print('hangs', flush=True)"
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(strange_folder)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "hangs\n"
    parent.kill()
    parent.wait()
    wait_for(lambda: ends(child), 10)


def test_a_model_that_takes_a_table_is_given_one(tmp_path: Path) -> None:
    made(tmp_path / "model", "table")
    model = opened(tmp_path / "model")
    try:
        given = window()
        assert model.predict([given]) == pytest.approx([float(given[-1, 3]) * 2], rel=1e-6)
    finally:
        model.close()


def test_a_graph_is_served_without_a_process(tmp_path: Path) -> None:
    assert isinstance(opened(files(tmp_path / "model", graph())), Forecaster)


def test_code_is_not_run_unless_it_is_asked_for(strange_folder: Path) -> None:
    with pytest.raises(UnsupportedModel):
        Forecaster.spec(VERSION, strange_folder, seq_len=12, n_features=18, limits=Limits())


def test_what_can_not_be_loaded_says_why(strange_folder: Path, tmp_path: Path) -> None:
    for name in ("python_model.pkl", "requirements.txt"):
        assert (strange_folder / name).exists()
    broken = files(tmp_path / "broken", b"")
    manifest = (strange_folder / "MLmodel").read_text().replace("mlflow.pyfunc.model", "no_such_module")
    (broken / "MLmodel").write_text(manifest)
    with pytest.raises(UnsupportedModel, match="needs the package no_such_module"):
        opened(broken)


def test_a_python_that_is_none(strange_folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="can't be started"):
        opened(strange_folder, Host(python="/no/such/python"))


@pytest.mark.parametrize("python", ["/bin/true", "/bin/cat", "/bin/yes"])
def test_a_program_that_is_no_python(strange_folder: Path, python: str) -> None:
    with pytest.raises((ChildFailed, UnsupportedModel)) as failure:
        opened(strange_folder, Host(python=python, load_s=5))
    assert "/" not in str(failure.value)


def test_loading_that_takes_too_long_is_given_up(strange_folder: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ChildFailed, match="in time"):
        opened(strange_folder, Host(load_s=0.05))
    assert time.monotonic() - started < 10


def test_a_model_for_another_window_is_refused(strange_folder: Path) -> None:
    with pytest.raises((BadModelFile, UnsupportedModel)):
        any_spec(VERSION, strange_folder, seq_len=12, n_features=5, limits=Limits(), host=HOST)
    spec = any_spec(VERSION, strange_folder, seq_len=24, n_features=18, limits=Limits(), host=HOST)
    model = spec.load()
    try:
        with pytest.raises(BadModelFile, match="can't be used"):
            model.warm()
    finally:
        model.close()


@pytest.mark.slow
def test_the_documents_own_kind_of_model_is_served(tmp_path: Path) -> None:
    """A pickled torch LSTM between two scalers, loaded by the full MLflow."""
    python = os.environ.get("MARU_MLFLOW_PYTHON")
    if not python or subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("MARU_MLFLOW_PYTHON names no interpreter with mlflow and torch")
    told = json.loads(made(tmp_path / "model", "torch", python))
    model = opened(tmp_path / "model", Host(python=python, load_s=120, answer_s=60))
    try:
        windows = [np.array(each, np.float32) for each in told["windows"]]
        assert model.predict(windows) == pytest.approx(told["answers"], rel=1e-6)
        assert len(set(told["answers"])) == 8
    finally:
        model.close()
