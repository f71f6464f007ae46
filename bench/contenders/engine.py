"""The serving frameworks, each serving `echo` and `device` (models.py): one worker, batches of 32, 5 ms wait.

`echo` is served without batching, each framework's cheapest way; Maru's passes its whole engine all the same.
"""

from __future__ import annotations

from bench.contenders import CACHE, HERE, Contender


def _window(data: object) -> object:
    return {"data": data}


def _batch_of_one(data: object) -> object:
    return {"data": [data]}


def maru(model: str) -> Contender:
    """Maru's engine and HTTP kit around the model: wire guard, request ids, receipts and metrics included."""
    return Contender(
        name=f"maru-{model}",
        title="Maru",
        venv="maru",
        command=lambda bin, port: [str(bin / "python"), "-m", "bench.maru_echo", str(port)],
        path="/predict",
        body=_window,
        settings="batch 32, wait 5 ms" if model == "device" else "the whole road: admission, lease, batcher",
        env={"MODEL": model},
        ready="/readyz",
        packages=("maru", "fastapi", "uvicorn"),
    )


def fastapi(model: str) -> Contender:
    """The floor."""
    return Contender(
        name=f"fastapi-{model}",
        title="bare FastAPI",
        venv="fastapi",
        command=lambda bin, port: [str(bin / "python"), str(HERE / "fastapi_bare.py"), str(port)],
        path="/predict",
        body=_window,
        settings="uvicorn with uvloop and httptools; it cannot batch",
        env={"MODEL": model},
        packages=("fastapi", "uvicorn", "pydantic"),
    )


def litserve(model: str) -> Contender:
    """LitServe."""
    return Contender(
        name=f"litserve-{model}",
        title="LitServe",
        venv="litserve",
        command=lambda bin, port: [str(bin / "python"), str(HERE / "litserve_app.py"), str(port)],
        path="/predict",
        body=_window,
        settings="fast_queue" + (", max_batch_size=32, batch_timeout=5 ms" if model == "device" else ""),
        env={"MODEL": model},
        packages=("litserve", "fastapi", "uvicorn"),
    )


def bentoml(model: str) -> Contender:
    """BentoML."""
    return Contender(
        name=f"bentoml-{model}",
        title="BentoML",
        venv="bentoml",
        command=lambda bin, port: [
            str(bin / "bentoml"), "serve", "bentoml_service:Bench",
            "--host", "127.0.0.1", "--port", str(port),
        ],
        path="/predict",
        body=_batch_of_one if model == "device" else _window,
        settings="workers=1"
        + (", batchable, max_batch_size=32, max_latency_ms=1000 (a limit)" if model == "device" else ""),
        env={"MODEL": model, "BENTOML_HOME": str(CACHE / "bentoml")},
        ready="/readyz",
        packages=("bentoml", "starlette", "uvicorn"),
    )  # fmt: skip


def ray(model: str) -> Contender:
    """Ray Serve behind HAProxy, as it advises. Started anew for each turn: a paused node is dead."""
    return Contender(
        name=f"ray-{model}",
        title="Ray Serve",
        venv="ray",
        command=lambda bin, port: [str(bin / "python"), str(HERE / "ray_app.py"), str(port)],
        path="/predict",
        body=_window,
        settings="one replica behind its HAProxy, RAY_SERVE_THROUGHPUT_OPTIMIZED=1"
        + (", serve.batch(32, 5 ms)" if model == "device" else ""),
        env={"MODEL": model, "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
        ready="/-/routes",
        packages=("ray", "starlette", "uvicorn"),
        pausable=False,
    )


MODELS = ("echo", "device")


def contenders(model: str) -> tuple[Contender, ...]:
    """All of them, serving `model`."""
    return maru(model), fastapi(model), litserve(model), bentoml(model), ray(model)
