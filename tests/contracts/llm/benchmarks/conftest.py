"""Servers that run benchmarks, as processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Server, serving

SMALL = {"test_prompts": ["a b c", "d"], "warmup_iterations": 1, "max_tokens": 4}
"""A run of two requests, done in a moment."""


class BenchmarkServer(Server):
    """A server, and what a client says to it."""

    def open(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)

    def run(self, model: str = "quick-1", **config: Any) -> str:
        answer = httpx.post(f"{self.url}/api/v1/benchmark/run", json={"model_id": model, "config": {**SMALL, **config}})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["benchmark_id"])

    def status(self, benchmark_id: str) -> dict[str, Any]:
        data: dict[str, Any] = httpx.get(f"{self.url}/api/v1/benchmark/{benchmark_id}/status").json()["data"]
        return data

    def results(self, benchmark_id: str, **query: Any) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/v1/benchmark/{benchmark_id}/results", params=query, timeout=30)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def until(self, benchmark_id: str, *statuses: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until it has one of these, and what it says then."""
        seen: dict[str, Any] = {}

        def come() -> bool:
            seen.update(self.status(benchmark_id))
            return seen["status"] in statuses

        self.wait_until(come, timeout_s)
        return seen

    def done(self, benchmark_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        ended = self.until(benchmark_id, "completed", "failed", "cancelled", timeout_s=timeout_s)
        assert ended["status"] == "completed", ended
        return self.results(benchmark_id)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def benchmarking(home: Path, **settings: Any) -> Iterator[BenchmarkServer]:
    """A server whose state and output are in `home`, with a quick model and a slow one."""
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    for name in ("quick-1", "slow-100"):
        (models / f"{name}.gguf").touch()
    (models / "spoilt-1.gguf").write_text("bad")
    with serving(BenchmarkServer, "tests.contracts.llm.benchmarks.serve", home, settings) as server:
        yield server


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchmarkServer]:
    """A server for tests that leave nothing behind that others would have to wait for."""
    with benchmarking(tmp_path_factory.mktemp("bench")) as server:
        server.wait("/healthz")
        yield server
