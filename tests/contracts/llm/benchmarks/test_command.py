"""`maru bench llm` against a server on a real socket."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.llm.benchmarks.conftest import BenchmarkServer

BENCH = [sys.executable, "-c", "from maru.commands.bench import app; app()", "llm"]


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "MARU_HOME": str(home), "COLUMNS": "200"}


def measure(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BENCH, *arguments], env=environment(home), capture_output=True, text=True, cwd=home, timeout=120
    )


def measured(home: Path, *arguments: str) -> dict[str, Any]:
    done = measure(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_server_is_measured_shown_and_written(bench: BenchmarkServer, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text('one two\n\n{"prompt": "three | <b> four"}\n')
    done = measure(
        tmp_path, "quick-1", "--url", bench.url, "--prompts", "prompts.txt", "--concurrency", "1,4", "--requests", "8",
        "--max-tokens", "5", "--slo", "ttft:10,e2e:10", "--output", "out", "--pid", str(bench.process.pid),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "4 at once" in done.stderr and "8/8" in done.stderr
    out = tmp_path / "out"
    result = json.loads((out / "result.json").read_text())
    assert [level["requests"]["ok"] for level in result["levels"]] == [8, 8]
    assert result["levels"][0]["goodput"]["share"] == 1.0
    assert len(result["detailed_results"]) == 16 and len(result["detailed_results"][0]["text_s"]) == 5
    assert result["model"] == {"id": "quick-1", "url": bench.url}
    assert "key" not in result["config"]
    assert len(list(csv.DictReader((out / "requests.csv").open()))) == 16
    assert [row["level"] for row in csv.DictReader((out / "levels.csv").open())] == ["1 at once", "4 at once"]
    report = (out / "report.md").read_text()
    for plot in ("throughput", "ttft", "itl", "requests"):
        assert f"({plot}.svg)" in report
        assert (out / f"{plot}.svg").read_text().startswith("<svg")


def test_it_says_what_the_server_says(bench: BenchmarkServer, tmp_path: Path) -> None:
    """The model takes 100 ms a word, and the engine inside measures the same as the client outside."""
    common = {"test_prompts": ["a"], "max_tokens": 5, "num_iterations": 4}
    (inside,) = bench.done(bench.run("slow-100", **common))["levels"]
    outside = measured(
        tmp_path,
        "slow-100",
        "--url",
        bench.url,
        "--requests",
        "4",
        "--max-tokens",
        "5",
        "--pid",
        str(bench.process.pid),
    )["levels"][0]
    for name in ("ttft_s", "tpot_s"):
        assert outside[name]["p50"] == pytest.approx(inside[name]["p50"], abs=0.05)
    assert outside["output_tokens_per_s"] == pytest.approx(inside["output_tokens_per_s"], rel=0.3)
    assert outside["prompt_tokens"] > 0 and outside["completion_tokens"] == 20
    assert outside["cpu_s"] > 0


def test_as_a_chat_and_at_a_rate(bench: BenchmarkServer, tmp_path: Path) -> None:
    (level,) = measured(
        tmp_path, "quick-1", "--url", bench.url, "--chat", "--rate", "20", "--even", "--requests", "10",
        "--max-tokens", "2", "--warmup", "1", "--repetitions", "2",
    )["levels"]  # fmt: skip
    assert level["requests"]["ok"] == 20 and level["arrivals"] == "constant"
    assert level["seconds"] == pytest.approx(2 * 9 / 20, abs=0.5)
    assert level["repetitions"]["requests_per_s"]["n"] == 2


def test_without_a_name_it_is_the_first_model_of_the_server(bench: BenchmarkServer, tmp_path: Path) -> None:
    result = measured(tmp_path, "--url", bench.url, "--max-tokens", "1", "--warmup", "0")
    assert result["model_id"] == "quick-1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--concurrency", "0"), "--concurrency"),
        (("--rate", "fast"), "--rate"),
        (("--slo", "speed:1"), "--slo"),
        (("--url", "http://127.0.0.1:9"), "no_connection"),
    ],
)
def test_what_a_person_can_mend_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = measure(tmp_path, *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 2


def test_a_server_without_that_model_is_told(bench: BenchmarkServer, tmp_path: Path) -> None:
    done = measure(tmp_path, "unknown", "--url", bench.url)
    assert done.returncode == 1 and "http_404" in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_was_measured(bench: BenchmarkServer, tmp_path: Path) -> None:
    arguments = ["slow-100", "--url", bench.url, "--requests", "500", "--max-tokens", "2", "--warmup", "1", "--json"]
    process = subprocess.Popen(
        [*BENCH, *arguments], env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    before = bench.log().count('"/v1/completions"')
    bench.wait_until(lambda: bench.log().count('"/v1/completions"') >= before + 8, 30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 1, stderr
    result = json.loads(stdout)
    assert (result["status"], result["error"]) == ("failed", "it was broken off")
    assert result["levels"][0]["requests"]["ok"] >= 2
