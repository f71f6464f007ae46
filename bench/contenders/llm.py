"""The servers of one generation model. All are asked in OpenAI's words, for greedy answers of a fixed length."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bench.contenders import CACHE, HERE, Contender
from bench.contenders.llm_models import Model

CONTEXT = 2048
"""Tokens that a slot has room for, everywhere."""

_KEY = "bench-only-key-0123456789"


def bearer() -> Mapping[str, str]:
    """What Maru asks for."""
    return {"Authorization": f"Bearer {_KEY}"}


def maru_environment(models: Path, home: str, **settings: str) -> dict[str, str]:
    """Maru's, serving the models of that folder."""
    own = {
        "MODELS_DIR": str(models),
        "MARU_HOME": str(CACHE / home),
        "API_KEYS": _KEY,
        "LLM_CONTEXT": str(CONTEXT),
    }
    return own | settings


def serving(bin: Path, port: int) -> list[str]:
    """Maru's command."""
    return [str(bin / "maru"), "serve", "ai", "--host", "127.0.0.1", "--port", str(port)]


def maru(model: Model, slots: int, threads: int, native: Path | None = None) -> Contender:
    """Maru's generation service as it ships; with `native`, a `llama-server` that was compiled for this machine."""
    name = "maru-native" if native else "maru"
    settings = {"LLM_SLOTS": str(slots), "LLM_THREADS": str(threads)}
    if native:
        settings["LLAMA_SERVER"] = str(native)
    return Contender(
        name=f"{name}-{model.name}",
        title="Maru, native llama-server" if native else "Maru",
        venv="maru",
        command=serving,
        path="/v1/completions",
        body=lambda asked: _asked(asked, model.name, ignore_eos=True),
        settings=f"{slots} slots, {threads} threads, " + ("LLAMA_SERVER" if native else "the wheel's llama.cpp")
        + "; API key checked, access log on",
        env=maru_environment(model.folder, f"{name}-{model.name}", **settings),
        headers=bearer,
        ready="/readyz",
        packages=("maru", "xllamacpp", "fastapi", "uvicorn"),
    )  # fmt: skip


def own(model: Model, slots: int, threads: int) -> Contender:
    """llama.cpp's own server of the same build."""
    return Contender(
        name=f"own-{model.name}",
        title="llama.cpp's own server",
        venv="maru",
        command=lambda bin, port: [
            str(bin / "python"), str(HERE / "llama_cpp_own.py"), str(port), str(model.gguf), str(slots), str(CONTEXT),
            str(threads),
        ],
        path="/v1/completions",
        body=lambda asked: _asked(asked, model.name, ignore_eos=True),
        settings=f"xllamacpp's, over TCP: {slots} slots, {threads} threads, batches of 256 as Maru's",
        env={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
        packages=("xllamacpp",),
    )  # fmt: skip


def llama_cpp_python(model: Model, threads: int) -> Contender:
    """`llama_cpp.server`."""
    return Contender(
        name=f"llama_cpp-{model.name}",
        title="llama_cpp.server",
        venv="llama_cpp",
        command=lambda bin, port: [
            str(bin / "python"), "-m", "llama_cpp.server", "--model", str(model.gguf), "--n_ctx", str(CONTEXT),
            "--n_threads", str(threads), "--n_threads_batch", str(threads), "--verbose", "False",
            "--interrupt_requests", "False", "--host", "127.0.0.1", "--port", str(port),
        ],
        path="/v1/completions",
        body=lambda asked: _asked(asked, model.name),
        settings=f"{threads} threads, compiled for this processor, --interrupt_requests False",
        env={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
        ready="/v1/models",
        packages=("llama_cpp_python", "fastapi", "uvicorn"),
    )  # fmt: skip


def transformers(model: Model, threads: int, dtype: str = "bfloat16") -> Contender:
    """transformers' `generate`."""
    return Contender(
        name=f"transformers-{model.name}",
        title=f"transformers generate, {dtype}",
        venv="sentence",
        command=lambda bin, port: [
            str(bin / "python"), str(HERE / "transformers_generate.py"), str(port), str(model.safetensors), dtype,
            str(threads),
        ],
        path="/v1/completions",
        body=lambda asked: _asked(asked, model.name),
        settings=f"one `generate` after the other behind FastAPI, {threads} threads, {dtype} (others: {model.kind})",
        packages=("transformers", "torch", "fastapi", "uvicorn"),
    )  # fmt: skip


def contenders(model: Model, slots: int, threads: int, native: Path | None = None) -> tuple[Contender, ...]:
    """All of them. The native server only where there is one."""
    found = [maru(model, slots, threads), own(model, slots, threads), llama_cpp_python(model, threads)]
    if native:
        found.append(maru(model, slots, threads, native))
    return (*found, transformers(model, threads))


def cores() -> int:
    return len(os.sched_getaffinity(0))


def _asked(asked: object, model: str, **more: object) -> object:
    """`asked` is a prompt and how many tokens are wanted."""
    assert isinstance(asked, tuple)
    prompt, tokens = asked
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **usage, **more}
