"""The embedding servers. All are asked in OpenAI's words and serve the same weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from bench.contenders import HERE, MODEL, MODELS, Contender

_SECRET = "bench-only-secret-of-more-than-32-bytes-0123456789"


@cache
def _bearer() -> Mapping[str, str]:
    maru = Path(sys.executable).parent / "maru"
    made = subprocess.run([maru, "token", "--secret", _SECRET], capture_output=True, text=True, check=True)
    return {"Authorization": f"Bearer {made.stdout.split()[-1]}"}


def _asked(texts: object) -> object:
    return {"input": texts, "model": "minilm"}


def maru(precision: str) -> Contender:
    """Maru's embedding service as it ships: authentication, cache, log and metrics on; the rate limit off."""
    return Contender(
        name=f"maru-{precision}",
        title=f"Maru, {precision}",
        venv="maru",
        command=lambda bin, port: [
            str(bin / "maru"), "serve", "embedding", "--host", "127.0.0.1", "--port", str(port),
        ],
        path="/v1/embeddings",
        body=lambda texts: {"input": texts, "model": "embedding"},
        settings="as it ships: JWT checked, access log and result cache on; only RATE_LIMIT_PER_MIN=0",
        env={
            "MODEL_QUANTIZATION": precision,
            "SUPABASE_JWT_SECRET": _SECRET,
            "RATE_LIMIT_PER_MIN": "0",
            "MARU_HOME": str(MODELS.parent / f"maru-{precision}"),
        },
        headers=_bearer,
        ready="/readyz",
        precision=precision,
        packages=("maru", "onnxruntime", "fastapi", "uvicorn"),
    )  # fmt: skip


def infinity(name: str, title: str, model: Path, precision: str, settings: str, *options: str) -> Contender:
    """Infinity by its own command line."""
    return Contender(
        name=name,
        title=title,
        venv="infinity",
        command=lambda bin, port: [
            str(bin / "infinity_emb"), "v2", "--model-id", str(model), "--served-model-name", "minilm",
            "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--log-level", "error", *options,
        ],
        path="/embeddings",
        body=_asked,
        settings=settings,
        env={"HF_HOME": str(MODELS.parent / "hf")},
        precision=precision,
        packages=("infinity-emb", "torch", "transformers", "optimum", "onnxruntime", "fastapi", "uvicorn"),
    )  # fmt: skip


INFINITY = (
    infinity(
        "infinity-torch", "Infinity, torch", MODEL, "fp32",
        "--engine torch, BetterTransformer on (its default)",
        "--engine", "torch",
    ),
    infinity(
        "infinity-torch-int8", "Infinity, torch int8", MODEL, "int8",
        "--engine torch --dtype int8 --no-bettertransformer",
        "--engine", "torch", "--dtype", "int8", "--no-bettertransformer",
    ),
    infinity(
        "infinity-optimum", "Infinity, optimum", MODELS / "minilm-onnx", "fp32",
        "--engine optimum on optimum's export of the same weights, ONNX optimisation on (its default)",
        "--engine", "optimum", "--pooling-method", "mean",
    ),
    infinity(
        "infinity-optimum-int8", "Infinity, optimum int8", MODELS / "minilm-onnx-int8", "int8",
        "--engine optimum on that export, quantised as `optimum-cli onnxruntime quantize --avx512_vnni "
        "--per_channel` does",
        "--engine", "optimum", "--pooling-method", "mean",
    ),
)  # fmt: skip

SENTENCE = Contender(
    name="fastapi-sentence",
    title="FastAPI + sentence-transformers",
    venv="sentence",
    command=lambda bin, port: [str(bin / "python"), str(HERE / "sentence_fastapi.py"), str(port)],
    path="/v1/embeddings",
    body=_asked,
    settings="uvicorn with uvloop, one `encode` a request in the thread pool, torch's default threads",
    env={"MODEL_DIR": str(MODEL)},
    packages=("sentence-transformers", "torch", "transformers", "fastapi", "uvicorn"),
)

CONTENDERS = (maru("int8"), maru("fp32"), *INFINITY, SENTENCE)
