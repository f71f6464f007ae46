"""A real model in a real worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.llm.benchmarks.conftest import BenchmarkServer, benchmarking
from tests.fixtures_llm import MIDDLE, random_gguf

PROMPT = "The cat sat on the mat, and the dog ran"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("real")
    random_gguf(home / "gguf" / "middle.gguf", size=MIDDLE)
    with benchmarking(home, real=True, models=str(home / "gguf")) as server:
        server.wait("/healthz")
        yield server


def test_what_a_real_model_tells_is_in_the_result(real: BenchmarkServer) -> None:
    run = real.run(
        "middle", test_prompts=[PROMPT], num_iterations=6, concurrency=[1, 2], max_tokens=32, fixed_length=True
    )
    results = real.done(run, timeout_s=120)
    for level in results["levels"]:
        assert level["requests"]["ok"] == 6
        assert level["completion_tokens"] == 6 * 32 and level["prompt_tokens"] > 6
        assert level["cached_tokens"] == 0, "unless it is asked for"
        assert level["prefill_tokens_per_s"] > 0 and level["decode_tokens_per_s"] > 0
        assert level["cpu_s"] > 0 and level["output_tokens_per_cpu_s"] > 0, "the worker's, too"
    assert results["model"]["architecture"] == "llama" and results["environment"]["packages"]["xllamacpp"]


def test_equal_beginnings_are_computed_once_if_that_is_asked_for(real: BenchmarkServer) -> None:
    run = real.run("middle", test_prompts=[PROMPT * 8], num_iterations=4, max_tokens=2, reuse_cache=True)
    (level,) = real.done(run, timeout_s=120)["levels"]
    assert level["cached_tokens"] > level["prompt_tokens"] / 2


def test_the_times_are_those_of_the_model_and_the_tokens_those_that_another_client_gets(real: BenchmarkServer) -> None:
    """How close the times are is for `bench.llm_agreement` on a quiet machine. That they hold together is not."""
    body = {"prompt": PROMPT, "model_id": "middle", "max_tokens": 32, "temperature": 0.0}
    with real.open() as client:
        counts = client.post("/api/v1/generate", json=body).json()["data"]
    run = real.run("middle", test_prompts=[PROMPT], num_iterations=10, max_tokens=32)
    results = real.done(run, timeout_s=120)
    for each in results["detailed_results"]:
        assert each["prompt_tokens"] == counts["prompt_tokens"]
        assert each["completion_tokens"] == counts["tokens_generated"]
        assert 0 < each["ttft_s"] < each["e2e_s"]
        assert each["e2e_s"] >= 0.9 * (each["prefill_s"] + each["decode_s"]), "no quicker than the model says it was"
    (level,) = results["levels"]
    assert level["seconds"] >= sum(each["e2e_s"] for each in results["detailed_results"]) * 0.99, "one after another"


def test_a_model_whose_process_is_killed_meanwhile(real: BenchmarkServer) -> None:
    """Answers under way fail and are counted; the model is loaded again for the next."""
    run = real.run("middle", test_prompts=[PROMPT], num_iterations=60, max_tokens=64, fixed_length=True)
    real.wait_until(lambda: ((real.status(run)["progress"] or {}).get("done") or 0) >= 3, 60)
    workers = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent(entry) == real.process.pid
    ]
    assert workers
    for pid in workers:
        os.kill(pid, 9)
    results = real.done(run, timeout_s=180)
    (level,) = results["levels"]
    assert level["requests"]["ok"] >= 55 and level["requests"]["ok"] < 60


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
