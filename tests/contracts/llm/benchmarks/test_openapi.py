"""The OpenAPI document is true of the benchmark and metrics endpoints, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.contracts.llm.benchmarks.conftest import benchmarking

CONFIGURATION = Path(__file__).parents[1] / "schemathesis.toml"


def test_schemathesis(tmp_path: Path) -> None:
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        run = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION,
                "run", server.url + "/openapi.json", "--url", server.url,
                "--include-path-regex", "/(benchmark|metrics)/?",
                "--seed", "1", "--max-examples", "15", "--workers", "1",
                "--suppress-health-check", "all", "--no-color",
            ],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
        assert "request_failed" not in server.log() and "INTERNAL_ERROR" not in server.log()
