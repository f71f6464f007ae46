"""The servers of one forecaster: the starter, as an MLflow registry has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.contenders import CACHE, HERE, Contender

HOME = CACHE / "forecast"
NAME = "BTC_LSTM_Production"


def model_folder() -> Path:
    """The starter's files in an embedded registry, which is made if need be: what all contenders serve."""
    from maru.runtimes.registry.open import embedded

    folder = embedded(HOME)
    if not list(folder.glob("artifacts/**/MLmodel")):
        command = [sys.executable, "-m", "maru.services.forecast.starter", str(folder), NAME, "staging"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (found,) = folder.glob("artifacts/**/MLmodel")
    return found.parent


def _payload(data: object) -> object:
    return {"X": data}


def maru() -> Contender:
    """`maru serve forecast` as it ships, but for the result cache, which repeated windows would be answered from."""
    return Contender(
        name="maru-forecast",
        title="Maru",
        venv="maru",
        command=lambda bin, port: [str(bin / "maru"), "serve", "forecast", "--port", str(port)],
        path="/predict",
        body=_payload,
        settings="as it ships, with its access log, without the result cache",
        env={"MARU_HOME": str(HOME), "RESULT_CACHE_MB": "0"},
        ready="/readyz",
        packages=("maru", "fastapi", "onnxruntime", "mlflow-skinny"),
    )


def fastapi(kind: str) -> Contender:
    """Plain FastAPI: `ort` is the floor, `pyfunc` the way the document's server was written."""
    return Contender(
        name=f"fastapi-{kind}",
        title=f"FastAPI + {'onnxruntime' if kind == 'ort' else 'pyfunc'}",
        venv="mlflow",
        command=lambda bin, port: [str(bin / "python"), str(HERE / "forecast_fastapi.py"), str(port)],
        path="/predict",
        body=_payload,
        settings="uvicorn with uvloop and httptools, no access log",
        env={"MODEL": kind, "MODEL_FOLDER": str(model_folder())},
        packages=("fastapi", "uvicorn", "onnxruntime"),
    )


def mlflow() -> Contender:
    """`mlflow models serve`, one worker."""
    return Contender(
        name="mlflow",
        title="mlflow models serve",
        venv="mlflow",
        command=lambda bin, port: [
            str(bin / "mlflow"), "models", "serve", "-m", str(model_folder()), "--env-manager", "local",
            "-h", "127.0.0.1", "-p", str(port), "-w", "1",
        ],
        path="/invocations",
        body=lambda data: {"inputs": [data]},
        settings="--env-manager local, one worker",
        env={"MLFLOW_DISABLE_TELEMETRY": "true"},
        ready="/ping",
        packages=("mlflow", "onnxruntime"),
    )  # fmt: skip


def contenders() -> tuple[Contender, ...]:
    return maru(), fastapi("ort"), fastapi("pyfunc"), mlflow()
