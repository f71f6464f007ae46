"""The OpenAPI document is true of the benchmark and metrics endpoints, too."""

from __future__ import annotations

from pathlib import Path

from tests.contracts.conformance import foretold
from tests.contracts.llm.benchmarks.conftest import benchmarking

CONFIGURATION = Path(__file__).parents[1] / "schemathesis.toml"


def test_schemathesis(tmp_path: Path) -> None:
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        own = "/(benchmark|metrics)/?"
        foretold(server, CONFIGURATION, tmp_path, "--include-path-regex", own, seed=1, examples=15)
