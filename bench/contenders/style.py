"""The servers of the style starter's text matcher, each asked in the document's words."""

from __future__ import annotations

from collections.abc import Callable

from bench.contenders import BENCH, CACHE, HERE, Contender

KINDS = ("infer", "batch")
KEY = "benchmarks-ask-with-this-key-0123456789"
SOURCE = {"PYTHONPATH": str(BENCH.parent / "src")}


def _body(kind: str) -> Callable[[object], object]:
    if kind == "infer":
        return lambda data: {"text": data}

    def batch(data: object) -> object:
        assert isinstance(data, list)
        return {"items": [{"id": str(n), "text": text} for n, text in enumerate(data)], "batch_size": 10}

    return batch


def _path(kind: str) -> str:
    return {"infer": "/infer", "batch": "/infer/batch"}[kind]


def maru(kind: str, queue: int = 64, sleep_s: float = 0.0) -> Contender:
    """The style service, with its credentials, its access log and the document's log record, without the result
    cache, which repeated texts would be answered from. `sleep_s` is added to each call of the model."""
    return Contender(
        name=f"maru-style-{kind}",
        title="Maru",
        venv="maru",
        command=lambda bin, port: [str(bin / "python"), "-m", "bench.maru_style", str(port)],
        path=_path(kind),
        body=_body(kind),
        settings=f"2 running, {queue} waiting, API key, access log and the document's log record, no result cache",
        env={"QUEUE": str(queue), "SLEEP_S": str(sleep_s), "KEY": KEY},
        headers=lambda: {"Authorization": f"Bearer {KEY}"},
        ready="/readyz",
        packages=("maru", "fastapi", "uvicorn"),
    )


def fastapi(kind: str) -> Contender:
    """The floor: no queue, no limits, no credentials, no log; the matcher is called on the event loop."""
    return Contender(
        name=f"fastapi-style-{kind}",
        title="plain FastAPI",
        venv="style",
        command=lambda bin, port: [str(bin / "python"), str(HERE / "style_fastapi.py"), str(port)],
        path=_path(kind),
        body=_body(kind),
        settings="uvicorn with uvloop and httptools, no access log",
        env=SOURCE,
        packages=("fastapi", "uvicorn", "pydantic"),
    )


def litserve(kind: str) -> Contender:
    """LitServe."""
    return Contender(
        name=f"litserve-style-{kind}",
        title="LitServe",
        venv="style",
        command=lambda bin, port: [str(bin / "python"), str(HERE / "style_litserve.py"), str(port)],
        path=_path(kind),
        body=_body(kind),
        settings="one worker, fast_queue, no access log",
        env={**SOURCE, "KIND": kind},
        packages=("litserve", "fastapi", "uvicorn"),
    )


def bentoml(kind: str) -> Contender:
    """BentoML."""
    return Contender(
        name=f"bentoml-style-{kind}",
        title="BentoML",
        venv="style",
        command=lambda bin, port: [
            str(bin / "bentoml"), "serve", "style_bentoml:Style", "--host", "127.0.0.1", "--port", str(port),
        ],
        path=_path(kind),
        body=_body(kind),
        settings="workers=1, no access log",
        env={**SOURCE, "BENTOML_HOME": str(CACHE / "bentoml")},
        ready="/readyz",
        packages=("bentoml", "starlette", "uvicorn"),
    )  # fmt: skip


def contenders(kind: str) -> tuple[Contender, ...]:
    return maru(kind), fastapi(kind), litserve(kind), bentoml(kind)
