"""Whether a server's OpenAPI document is true of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from tests.conftest import Server

REFUSALS = {"401", "403", "429", "503"}
"""Of whatever needs credentials."""


def foretold(server: Server, configuration: Path, folder: Path, *options: str, seed: int, examples: int = 20) -> None:
    """schemathesis finds no request whose answer the document did not foretell, and none that the server fails at."""
    before = len(server.log())
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", configuration,
            "run", server.url + "/openapi.json", "--url", server.url, *options,
            "--seed", str(seed), "--max-examples", str(examples), "--workers", "1",  # gh-106905: more fail at random
            "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=folder, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    said = server.log()[before:]
    assert "request_failed" not in said and "INTERNAL_ERROR" not in said


def errors_documented(server: Server) -> Any:
    """The document, each of whose operations says how it refuses."""
    document = httpx.get(server.url + "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            wanted = {"200", "400", "500"} | (REFUSALS if "security" in operation else set())
            assert wanted <= set(operation["responses"]), (method, path)
    return document


def guarded(document: Any) -> set[str]:
    """The paths that need credentials."""
    paths = document["paths"].items()
    return {path for path, operations in paths if any("security" in each for each in operations.values())}


def examples_answered(client: httpx.Client, schemas: Mapping[str, str]) -> None:
    """The document's own example for each path, by the name of what is sent there, is answered."""
    documented = client.get("/openapi.json").json()["components"]["schemas"]
    for path, name in schemas.items():
        (example,) = documented[name]["examples"]
        assert client.post(path, json=example).status_code == 200
