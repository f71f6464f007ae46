"""The document's benchmark and metrics endpoints, as its own clients call them."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime
from typing import Any

import httpx
import pytest
from tests.contracts.llm.benchmarks.conftest import SMALL, BenchmarkServer

PERCENTILES = {"n", "mean", "std", "min", "p50", "p90", "p95", "p99", "max"}


def test_the_documents_request_is_answered_as_documented(bench: BenchmarkServer) -> None:
    config = {
        "test_prompts": ["Write a short story about AI:", "Explain machine learning:"],
        "warmup_iterations": 3,
        "warmup_prompt": "Hello, world!",
    }
    with bench.open() as client:
        taken = client.post("/api/v1/benchmark/run", json={"model_id": "quick-1", "config": config})
        assert taken.status_code == 200
        data = taken.json()["data"]
        assert taken.json() == {"success": True, "data": {"benchmark_id": data["benchmark_id"], "status": "started"}}
        assert re.fullmatch(r"bench_\d{8}_[0-9a-f]{32}", data["benchmark_id"])
        results = bench.done(data["benchmark_id"])
        status = client.get(f"/api/v1/benchmark/{data['benchmark_id']}/status").json()
    assert status["success"] is True and status["data"]["status"] == "completed"
    assert (results["benchmark_id"], results["model_id"], results["status"]) == (
        data["benchmark_id"], "quick-1", "completed",
    )  # fmt: skip
    assert results["avg_tokens_per_second"] > 0 and 0 < results["avg_time_to_first_token"] < 1
    assert results["memory_peak_mb"] > 0
    assert [each["prompt"] for each in results["detailed_results"]] == config["test_prompts"]
    for each in results["detailed_results"]:
        assert each["tokens_generated"] == 128
        assert each["tokens_per_second"] == pytest.approx(128 / each["time_elapsed"], rel=1e-3)
        assert 0 < each["time_to_first_token"] < each["time_elapsed"]
    assert results["warmup"]["requests"] == 3, "and none of them is among the results"


def test_prompts_may_stand_beside_the_configuration(bench: BenchmarkServer) -> None:
    body = {"model_id": "quick-1", "test_prompts": ["x y"], "config": {"max_tokens": 2, "warmup_iterations": 0}}
    answer = httpx.post(f"{bench.url}/api/v1/benchmark/run", json=body)
    results = bench.done(answer.json()["data"]["benchmark_id"])
    assert [each["prompt"] for each in results["detailed_results"]] == ["x y"]
    assert results["warmup"]["requests"] == 0


def test_every_figure_the_field_reports(bench: BenchmarkServer) -> None:
    goals = {"ttft_s": 1.0, "tpot_s": 1e-9}
    results = bench.done(bench.run(concurrency=[1, 3], num_iterations=4, repetitions=2, objectives=goals))
    assert [level["concurrency"] for level in results["levels"]] == [1, 3]
    for level in results["levels"]:
        for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s", "queue_s"):
            assert set(level[name]) == PERCENTILES and level[name]["p50"] <= level[name]["p99"]
        for name in ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "prefill_tokens_per_s"):
            assert level[name] > 0
        assert level["requests"]["ok"] == 16
        assert level["completion_tokens"] == 64 and level["itl_s"]["n"] == 48
        assert level["prompt_tokens"] == 8 * (3 + 1)
        assert level["decode_tokens_per_s"] == pytest.approx(1000, rel=1e-3), "as the model says"
        assert level["repetitions"]["output_tokens_per_s"]["n"] == 2
        assert level["goodput"] == {"share": 0.0, "requests_per_s": 0.0, "requests": 0}
        assert level["peak_concurrency"] == level["concurrency"]
    assert results["levels"][1]["output_tokens_per_s"] > results["levels"][0]["output_tokens_per_s"]
    assert {"ttft_s", "tpot_s", "itl_s", "goodput"} <= set(results["definitions"])
    environment = results["environment"]
    assert environment["cpu"] and environment["cores"] >= 1 and environment["maru"] and environment["gpus"] == []
    assert results["model"]["digest"] and results["model"]["id"] == "quick-1"


def test_the_models_pace_is_what_is_measured(bench: BenchmarkServer) -> None:
    """It takes 100 ms for every word, so to the first, and between any two."""
    (level,) = bench.done(bench.run("slow-100", test_prompts=["a"], max_tokens=4))["levels"]
    assert level["ttft_s"]["p50"] == pytest.approx(0.1, abs=0.05)
    assert level["tpot_s"]["p50"] == pytest.approx(0.1, abs=0.05)
    assert level["e2e_s"]["p50"] == pytest.approx(0.4, abs=0.2)
    assert level["output_tokens_per_s"] == pytest.approx(10, rel=0.4)


def test_a_rate_is_kept_whatever_becomes_of_those_before(bench: BenchmarkServer) -> None:
    """Forty a second of a model that takes 200 ms: eight are on their way at once, as many as the model has slots."""
    run = bench.run("slow-100", test_prompts=["a"], num_iterations=30, rate=30.0, arrivals="constant", max_tokens=2)
    (level,) = bench.done(run)["levels"]
    assert level["rate"] == 30.0 and level["requests"]["ok"] == 30
    assert level["seconds"] == pytest.approx(29 / 30 + 0.2, abs=0.5)
    assert level["peak_concurrency"] >= 4


def test_a_sweep_goes_from_one_client_to_as_many_as_may_be(bench: BenchmarkServer) -> None:
    levels = bench.done(bench.run(sweep=2, concurrency=4, num_iterations=5))["levels"]
    assert [level["concurrency"] for level in levels[:2]] == [1, 4]
    rates = [level["rate"] for level in levels[2:]]
    assert len(rates) == 2 and rates == sorted(rates)
    assert levels[0]["requests_per_s"] < rates[0] and rates[1] < levels[1]["requests_per_s"]


def test_raw_samples_csv_and_a_report(bench: BenchmarkServer) -> None:
    run = bench.run()
    plain = bench.done(run)
    raw = bench.results(run, raw="true")
    assert "text_s" not in plain["detailed_results"][0]
    assert [len(each["text_s"]) for each in raw["detailed_results"]] == [4, 4]
    with bench.open() as client:
        table = client.get(f"/api/v1/benchmark/{run}/results", params={"format": "csv"})
        report = client.get(f"/api/v1/benchmark/{run}/results", params={"format": "markdown"})
        wrong = client.get(f"/api/v1/benchmark/{run}/results", params={"format": "xml"})
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["outcome"], row["completion_tokens"], row["prompt_number"]) for row in rows] == [
        ("ok", "4", "0"), ("ok", "4", "1"),
    ]  # fmt: skip
    assert report.text.startswith("# Benchmark of quick-1") and "data:image/svg+xml;base64," in report.text
    assert wrong.status_code == 422


def test_before_it_has_ended_results_are_empty_and_say_so(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", max_tokens=20)
    bench.until(run, "running")
    results = bench.results(run)
    assert results["status"] == "running" and results["detailed_results"] == []
    assert results["avg_tokens_per_second"] is None and results["memory_peak_mb"] is None
    httpx.post(f"{bench.url}/api/v1/benchmark/{run}/cancel")
    bench.until(run, "cancelled")


def test_the_machine_is_sampled_every_tenth_of_a_second_and_stored(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", test_prompts=["a"], max_tokens=20)
    results = bench.done(run)
    with bench.open() as client:
        history = client.get(f"/api/v1/metrics/benchmark/{run}").json()["data"]
        first = history["samples"][5]["time"]
        later = client.get(f"/api/v1/metrics/benchmark/{run}", params={"start": first}).json()["data"]
        minutes = client.get(f"/api/v1/metrics/benchmark/{run}", params={"resolution": "1m"}).json()["data"]
        naive = client.get(f"/api/v1/metrics/benchmark/{run}", params={"start": "2026-11-21T00:00:00"})
    assert history["source"] == "host" and history["truncated"] is False
    assert results["samples"] == {"count": len(history["samples"]), "all_stored": True}
    times = [datetime.fromisoformat(sample["time"]) for sample in history["samples"]]
    assert times == sorted(times)
    assert len(times) >= 10, "in 4 s, on a machine that has other things to do"
    assert all(sample["memory_used"] is None and sample["host_memory_used"] > 0 for sample in history["samples"])
    assert later["samples"] == history["samples"][5:]
    assert 1 <= len(minutes["samples"]) <= 2 and minutes["samples"][0]["max_host_memory"] > 0
    assert naive.status_code == 422, "a time without its zone could be any"
    peak = max(sample["host_memory_used"] for sample in history["samples"])
    assert results["memory_peak_mb"] == round(peak / 2**20, 1) and results["memory_source"] == "host"


def test_the_machine_now(bench: BenchmarkServer) -> None:
    data = httpx.get(f"{bench.url}/api/v1/metrics/gpu/current").json()["data"]
    assert set(data) >= {"timestamp", "temperature", "memory_used", "memory_total", "utilization", "power_usage"}
    assert data["source"] == "host" and data["temperature"] is None, "and says so"
    assert 0 < data["host_memory_used"] < data["host_memory_total"]


@pytest.mark.parametrize("path", ["status", "results", "cancel"], ids=lambda path: path)
def test_a_benchmark_that_there_is_not(bench: BenchmarkServer, path: str) -> None:
    for name in ("nope", "bench_20260107_abc123", "bench_20261121_" + "0" * 32, "a%00b", "..%2f..", "x" * 500):
        method = "POST" if path == "cancel" else "GET"
        answer = httpx.request(method, f"{bench.url}/api/v1/benchmark/{name}/{path}")
        assert answer.status_code == 404, name
        assert answer.json()["error"]["code"] in ("BENCHMARK_NOT_FOUND", "NOT_FOUND")
        assert answer.json()["success"] is False


def test_metrics_of_a_benchmark_that_there_is_not(bench: BenchmarkServer) -> None:
    for path in ("/api/v1/metrics/benchmark/nope", "/api/v1/metrics/nope"):
        answer = httpx.get(bench.url + path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "BENCHMARK_NOT_FOUND")


BAD: list[dict[str, Any]] = [
    {"test_prompts": []},
    {"test_prompts": [""]},
    {"test_prompts": ["  "]},
    {"test_prompts": ["a\0b"]},
    {"test_prompts": ["x" * 4097]},
    {"test_prompts": ["x"] * 21},
    {"test_prompts": "x"},
    {"max_tokens": 513},
    {"max_tokens": 0},
    {"max_tokens": True},
    {"warmup_iterations": 6},
    {"warmup_iterations": -1},
    {"concurrency": 65},
    {"concurrency": []},
    {"concurrency": [1] * 9},
    {"rate": 0.0},
    {"rate": -1.0},
    {"repetitions": 6},
    {"sweep": 7},
    {"sweep": 1, "concurrency": [1, 2]},
    {"num_iterations": 100, "test_prompts": ["x"] * 20, "repetitions": 2},
    {"num_iterations": 100, "test_prompts": ["x"] * 6, "max_tokens": 512},
    {"objectives": {"ttft_s": 0}},
    {"objectives": {"speed": 1}},
    {"temperature": 3.0},
    {"seed": 2**40},
    {"unknown": 1},
]


@pytest.mark.parametrize("config", BAD, ids=lambda config: str(config)[:40])
def test_what_no_server_should_bear_is_refused(bench: BenchmarkServer, config: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{bench.url}/api/v1/benchmark/run", json={"model_id": "quick-1", "config": {**SMALL, **config}}
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] == "INVALID_INPUT"


def test_a_model_that_there_is_not_or_that_is_no_good(bench: BenchmarkServer) -> None:
    unknown = httpx.post(f"{bench.url}/api/v1/benchmark/run", json={"model_id": "unknown"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")
    spoilt = httpx.post(f"{bench.url}/api/v1/benchmark/run", json={"model_id": "spoilt-1"})
    assert spoilt.status_code == 500 and spoilt.json()["error"]["code"] == "MODEL_LOAD_FAILED"


def test_a_model_that_never_answers_is_a_run_that_failed(bench: BenchmarkServer) -> None:
    run = bench.run(warmup_prompt="fail please", test_prompts=["fail"])
    ended = bench.until(run, "failed")
    assert "OutOfMemory" in ended["error"]
    run = bench.run(warmup_iterations=0, test_prompts=["fail"])
    assert "OutOfMemory" in bench.until(run, "failed")["error"]
    assert bench.results(run)["levels"][0]["requests"]["errors"] == {"OutOfMemory": 1}


def test_some_that_fail_are_counted_and_the_rest_is_measured(bench: BenchmarkServer) -> None:
    (level,) = bench.done(bench.run(test_prompts=["fail", "good"]))["levels"]
    assert (level["requests"]["ok"], level["requests"]["error"]) == (1, 1)
    assert level["ttft_s"]["n"] == 1 and level["completion_tokens"] == 4


def test_the_newest_first(bench: BenchmarkServer) -> None:
    first, second = bench.run(), bench.run()
    bench.done(second)
    listed = httpx.get(f"{bench.url}/api/v1/benchmark").json()["data"]
    assert [each["benchmark_id"] for each in listed[:2]] == [second, first]
    assert "results" not in listed[0] and "detailed_results" not in listed[0]
    assert httpx.get(f"{bench.url}/api/v1/benchmark", params={"model_id": "none"}).json()["data"] == []
    assert httpx.get(f"{bench.url}/api/v1/benchmark?model_id=a%00b").status_code == 200


def test_no_prompt_is_logged(bench: BenchmarkServer) -> None:
    bench.done(bench.run(test_prompts=["canary-91c2", "fail canary-91c2"], warmup_prompt="canary-91c2"))
    assert "canary-91c2" not in bench.log()


def test_the_documentation_is_true(bench: BenchmarkServer) -> None:
    document = httpx.get(f"{bench.url}/openapi.json").json()
    paths = document["paths"]
    for path, method in (
        ("/api/v1/benchmark/run", "post"), ("/api/v1/benchmark/{benchmark_id}/status", "get"),
        ("/api/v1/benchmark/{benchmark_id}/results", "get"), ("/api/v1/metrics/gpu/current", "get"),
        ("/api/v1/metrics/benchmark/{benchmark_id}", "get"), ("/api/v1/metrics/{benchmark_id}", "get"),
    ):  # fmt: skip
        assert method in paths[path]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', httpx.get(f"{bench.url}/openapi.json").text))
    assert named <= set(document["components"]["schemas"]), "every reference leads somewhere"
