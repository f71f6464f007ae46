"""Runs that wait, are cancelled, are cut off, and that many processes would like to do."""

from __future__ import annotations

import re
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contracts.llm.benchmarks.conftest import SMALL, BenchmarkServer, benchmarking
from tests.storage.postgres import TIMESCALE, PostgresServer, has_timescale
from tests.storage.servers import RedisServer

LONG = {"test_prompts": ["a"], "num_iterations": 50, "max_tokens": 50}
"""Minutes of the slow model."""


def test_one_at_a_time_in_order(bench: BenchmarkServer) -> None:
    runs = [bench.run("slow-100", max_tokens=2) for _ in range(4)]
    ended = [bench.done(run) for run in runs]
    for before, after in pairwise(ended):
        assert before["finished_at"] <= after["started_at"]


def test_five_wait_and_the_sixth_is_told_to_come_back(bench: BenchmarkServer) -> None:
    first = bench.run("slow-100", **LONG)
    bench.until(first, "running")
    waiting = [bench.run() for _ in range(5)]
    answer = httpx.post(f"{bench.url}/api/v1/benchmark/run", json={"model_id": "quick-1", "config": SMALL})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    for run in (*waiting, first):
        httpx.post(f"{bench.url}/api/v1/benchmark/{run}/cancel")
    for run in (*waiting, first):
        bench.until(run, "cancelled")
    bench.done(bench.run())


def test_one_that_runs_is_cancelled_within_seconds_and_keeps_what_it_has(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", test_prompts=["a"], num_iterations=100, max_tokens=2)
    bench.wait_until(lambda: ((bench.status(run)["progress"] or {}).get("done") or 0) >= 2, 20)
    began = time.monotonic()
    answer = httpx.post(f"{bench.url}/api/v1/benchmark/{run}/cancel")
    assert answer.status_code == 200
    ended = bench.until(run, "cancelled")
    assert time.monotonic() - began < 5 and ended["error"] is None
    (level,) = bench.results(run)["levels"]
    assert level["requests"]["ok"] >= 2 and level["requests"]["cancelled"] == 1
    status = httpx.get(f"{bench.url}/api/v1/models/slow-100").json()["data"]
    assert status["running"] == status["waiting"] == 0, "its slot is free"
    again = httpx.post(f"{bench.url}/api/v1/benchmark/{run}/cancel")
    assert again.json()["data"]["status"] == "cancelled"


def test_a_run_that_was_killed_is_told_so_within_five_seconds(tmp_path: Path) -> None:
    """And what waited is done by the next server."""
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        run, next_one = server.run("slow-100", **LONG), server.run()
        server.until(run, "running")
        server.kill()
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        began = time.monotonic()
        ended = server.until(run, "failed", timeout_s=10)
        assert time.monotonic() - began < 5.0
        assert ended["error"] == "interrupted" and ended["finished_at"]
        server.done(next_one)


def test_a_run_whose_server_stops_in_order_has_failed_too(tmp_path: Path) -> None:
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        run = server.run("slow-100", **LONG)
        server.until(run, "running")
        assert server.stop(signal.SIGTERM) in (0, 1)
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        ended = server.status(run)
        assert (ended["status"], ended["error"]) == ("failed", "interrupted"), "at once: it said so before it left"


def test_a_model_that_has_gone_meanwhile_is_a_run_that_failed(tmp_path: Path) -> None:
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        first, second = server.run("slow-100", test_prompts=["a"], max_tokens=20), server.run()
        (server.home / "models" / "quick-1.gguf").unlink()
        server.done(first)
        assert "ModelNotFound" in server.until(second, "failed", timeout_s=30)["error"]


@pytest.fixture(params=["sqlite", "postgresql", *(["timescale"] if has_timescale() else [])])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A database for several servers."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shared.db"
        return
    with PostgresServer(**(TIMESCALE if request.param == "timescale" else {})) as server:
        yield server.database()


def test_two_servers_of_one_database_never_do_two_runs(shared: str, tmp_path: Path) -> None:
    with benchmarking(tmp_path / "a", database=shared) as a, benchmarking(tmp_path / "b", database=shared) as b:
        a.wait("/healthz")
        b.wait("/healthz")
        runs = [server.run("slow-100", max_tokens=2) for _ in range(2) for server in (a, b)]
        ended = sorted((b.done(run) for run in runs), key=lambda each: each["started_at"])
        for before, after in pairwise(ended):
            assert before["finished_at"] <= after["started_at"]
        assert a.results(runs[1]) == b.results(runs[1])


def test_a_frozen_server_loses_its_run_and_does_not_end_it(shared: str, tmp_path: Path) -> None:
    """It is stopped as a machine without air is; when it comes to, somebody else has the next run."""
    with benchmarking(tmp_path / "a", database=shared) as a:
        a.wait("/healthz")
        run = a.run("slow-100", test_prompts=["a"], num_iterations=100, max_tokens=2)
        a.until(run, "running")
        a.process.send_signal(signal.SIGSTOP)
        try:
            with benchmarking(tmp_path / "b", database=shared) as b:
                b.wait("/healthz")
                assert b.until(run, "failed", timeout_s=20)["error"] == "interrupted"
                next_one = b.run("slow-100", test_prompts=["a"], num_iterations=15, max_tokens=2)
                b.until(next_one, "running")
                a.process.send_signal(signal.SIGCONT)
                b.wait_until(lambda: "given up" in a.log() or "can't be held" in a.log(), 20)
                b.done(next_one)
                assert b.status(run)["error"] == "interrupted", "what it measured then counts for nothing"
        finally:
            a.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_a_database_that_restarts_meanwhile_leaves_no_run_running_for_ever(number: int, tmp_path: Path) -> None:
    with PostgresServer() as server, benchmarking(tmp_path, database=server.database()) as bench:
        bench.wait("/healthz")
        run = bench.run("slow-100", test_prompts=["a"], num_iterations=15, max_tokens=2)
        bench.until(run, "running")
        server.stop(number)
        time.sleep(0.5)
        server.start()
        ended = bench.until(run, "completed", "failed", timeout_s=60)
        results = bench.results(run)
        if ended["status"] == "completed":
            assert results["levels"][0]["requests"]["ok"] == 15
            with bench.open() as client:
                stored = client.get(f"/api/v1/metrics/benchmark/{run}").json()["data"]["samples"]
            assert len(stored) == results["samples"]["count"] and results["samples"]["all_stored"]
        bench.done(bench.run())


def test_while_the_database_is_away_it_is_said_so(tmp_path: Path) -> None:
    with PostgresServer() as server, benchmarking(tmp_path, database=server.database()) as bench:
        bench.wait("/healthz")
        run = bench.run()
        bench.done(run)
        server.stop(signal.SIGQUIT)
        with bench.open() as client:
            for method, path in (
                ("GET", f"/api/v1/benchmark/{run}/status"), ("GET", f"/api/v1/benchmark/{run}/results"),
                ("GET", f"/api/v1/metrics/benchmark/{run}"), ("GET", f"/api/v1/metrics/{run}"),
                ("POST", "/api/v1/benchmark/run"),
            ):  # fmt: skip
                body = {"model_id": "quick-1"} if method == "POST" else None
                answer = client.request(method, path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORE_UNAVAILABLE"), path
                assert int(answer.headers["retry-after"]) >= 1
            asked = {"prompt": "a", "model_id": "quick-1", "max_tokens": 2}
            assert client.post("/api/v1/generate", json=asked).status_code == 200, "which needs no database"
            server.start()
            assert client.get(f"/api/v1/benchmark/{run}/status").json()["data"]["status"] == "completed"


def test_redis_tells_other_processes_how_far_it_is_and_is_never_the_truth(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path}/shared.db"
    with RedisServer() as redis:
        settings = {"database": shared, "redis": redis.url}
        with benchmarking(tmp_path / "a", **settings) as a, benchmarking(tmp_path / "b", **settings) as b:
            a.wait("/healthz")
            b.wait("/healthz")
            run = a.run("slow-100", test_prompts=["a"], num_iterations=30, max_tokens=2)
            a.until(run, "running")
            for server in (a, b):
                server.wait_until(lambda s=server: ((s.status(run)["progress"] or {}).get("done") or 0) >= 1, 20)  # type: ignore[misc]
            assert redis.admin.keys("maru:benchmark:*")
            redis.admin.set(f"maru:benchmark:{run}", b'{"done": 99999')
            assert b.status(run)["status"] == "running", "what is no JSON is not known"
            redis.kill()
            assert b.status(run)["progress"]["done"] < 99, "without Redis, as it was stored"
            assert a.done(run, timeout_s=60)["levels"][0]["requests"]["ok"] == 30


def test_people_come_before_benchmarks(tmp_path: Path) -> None:
    """Who asks while a benchmark runs waits no longer than when none does, and the benchmark is not spoilt by it."""
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        body = {"prompt": "a b", "model_id": "slow-100", "max_tokens": 3}

        def asked() -> float:
            with server.open() as client:
                began = time.monotonic()
                assert client.post("/api/v1/generate", json=body).status_code == 200
                return time.monotonic() - began

        asked()
        alone = sorted(asked() for _ in range(5))
        run = server.run("slow-100", test_prompts=["a"], num_iterations=24, concurrency=8, max_tokens=10)
        server.until(run, "running")
        server.wait_until(lambda: ((server.status(run)["progress"] or {}).get("on_the_way") or 0) >= 7, 20)
        times: list[float] = []
        threads = [threading.Thread(target=lambda: times.append(asked())) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join()
        (level,) = server.done(run)["levels"]
        assert max(times) < 2 * alone[-1] + 0.5
        assert level["yielded"]["requests"] >= 1 and level["yielded"]["seconds"] > 0.3
        assert level["requests"]["ok"] == 24, "what was broken off was asked again"
        assert level["e2e_s"]["p50"] < 2.5, "and took as long as it takes alone"


def test_who_may_ask_when_there_are_keys(tmp_path: Path) -> None:
    with benchmarking(tmp_path, api_keys=["a-key-of-somebody"]) as server:
        server.wait("/healthz")
        known = {"Authorization": "Bearer a-key-of-somebody"}
        for method, path in (
            ("POST", "/api/v1/benchmark/run"), ("GET", "/api/v1/benchmark"), ("GET", "/api/v1/benchmark/x/status"),
            ("POST", "/api/v1/benchmark/x/cancel"), ("GET", "/api/v1/benchmark/x/results"),
            ("GET", "/api/v1/metrics/gpu/current"), ("GET", "/api/v1/metrics/benchmark/x"),
            ("GET", "/api/v1/metrics/x"),
        ):  # fmt: skip
            body = {"model_id": "quick-1"} if path.endswith("/run") else None
            assert httpx.request(method, server.url + path, json=body).status_code == 401, path
        assert httpx.get(f"{server.url}/api/v1/metrics/gpu/current", headers=known).status_code == 200


def test_every_answer_is_in_the_log_of_inferences(tmp_path: Path) -> None:
    from maru.storage.database import connect
    from maru.storage.measurements import Measurements
    from maru.storage.timescale import Ability

    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        body = {"prompt": "one two three", "model_id": "quick-1", "max_tokens": 5}
        server.wait_until(lambda: httpx.post(f"{server.url}/api/v1/generate", json=body).status_code == 200, 20)
        server.done(server.run())
        logged = Measurements(connect(f"sqlite:///{tmp_path}/maru.db"), Ability("sqlite"))
        server.wait_until(lambda: len(logged.inferences("quick-1")) == 4, 10)
    lengths = [(row.prompt_length, row.generated_tokens) for row in logged.inferences("quick-1")]
    assert sorted(lengths) == [(1, 4), (2, 4), (3, 4), (3, 5)]
    assert all(row.total_time > 0 and row.tokens_per_second for row in logged.inferences("quick-1"))
    assert not re.search("one two", server.log())
