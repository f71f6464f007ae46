from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maru.runtimes.registry.publish import publish
from maru.runtimes.registry.types import RegisteredVersion

from .graphs import graph

Publish = Callable[..., RegisteredVersion]


def published(registry: str | Path, name: str = "BTC", add: float = 0.0, **options: Any) -> RegisteredVersion:
    given: dict[str, Any] = {"metadata": {}, "params": {}, "metrics": {}, "experiment": "forecast", **options}
    return publish(registry, name, graph(add), seq_len=12, n_features=18, **given)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded registry, in a folder of an awkward name. Making it takes seconds, so tests share it."""
    folder = tmp_path_factory.mktemp("home") / "집 100%25 #1?" / "registry"
    published(
        folder,
        "BTC_LSTM",
        add=1.0,
        metadata={"features": [f"f{place}" for place in range(18)], "close_index": 3, "interval": "1h"},
        params={f"param {number}": number for number in range(150)},
        metrics={"mase": 0.9},
        alias="staging",
    )
    published(folder, "BTC_LSTM", add=2.0, metrics={"mase": 0.8})
    return folder


@contextmanager
def mlflow_server(python: str, folder: Path, more: Sequence[str] = ()) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", *more,
        ],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not _answers(f"{url}/health"):
            assert process.poll() is None and time.monotonic() < until, "mlflow server does not start"
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def mlflow_python() -> str:
    python = os.environ.get("MARU_MLFLOW_PYTHON")
    if not python:
        pytest.skip("MARU_MLFLOW_PYTHON names no interpreter with the full mlflow")
    return python


@pytest.fixture(scope="session")
def server(mlflow_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server that holds what `embedded` holds."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(mlflow_python, folder, ["--artifacts-destination", f"{folder}/artifacts"]) as url:
        published(
            url, "BTC_LSTM", add=1.0, params={"lr": 0.1}, metrics={"mase": 0.9}, alias="staging",
            metadata={"features": [f"f{place}" for place in range(18)], "close_index": 3, "interval": "1h"},
        )  # fmt: skip
        published(url, "BTC_LSTM", add=2.0, metrics={"mase": 0.8})
        yield url
