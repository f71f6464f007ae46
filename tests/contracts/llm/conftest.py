"""Generation servers as processes of their own, over folders of models that tests change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Server, free_port
from tests.fixtures_llm import SLOW, random_gguf, reciting_gguf

ROOT = Path(__file__).parents[3]

WORDS = "one two three four five six seven"
ENVELOPE = {"success", "error"}


class GenerationServer(Server):
    """A server, its folder of models, and what a client says to it."""

    @property
    def models(self) -> Path:
        return self.home / "models"

    def open(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def status(self, model: str = "echo") -> dict[str, Any]:
        return httpx.get(f"{self.url}/api/v1/models/{model}", timeout=10).json()["data"]

    def held(self, model: str = "echo") -> int:
        """Answers under way, and those that wait."""
        status = self.status(model)
        return status["running"] + status["waiting"]


@contextmanager
def generating(home: Path, **settings: Any) -> Iterator[GenerationServer]:
    """A server whose state and output are in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    output = home / "output.log"
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contracts.llm.serve", str(port), str(home), json.dumps(settings)],
            env={**inherited, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, cwd=home,
        )  # fmt: skip
    try:
        yield GenerationServer(process, port, home, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def shelve(home: Path, *names: str, said: str = "") -> None:
    """Put scripted models into the folder."""
    (home / "models").mkdir(parents=True, exist_ok=True)
    for name in names:
        (home / "models" / f"{name}.gguf").write_text(said)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenerationServer]:
    """Two good models, one whose file is bad, and one that can't be loaded."""
    home = tmp_path_factory.mktemp("scripted")
    shelve(home, "echo", "other")
    shelve(home, "spoilt", said="bad")
    shelve(home, "unloadable", said="2000")
    with generating(home, scripted=True) as server:
        server.wait()
        yield server


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenerationServer]:
    """`reciter` says the seven words and ends, `sayer` says them for ever, `slow` takes its time over anything."""
    home = tmp_path_factory.mktemp("real")
    reciting_gguf(home / "models" / "reciter.gguf", WORDS)
    reciting_gguf(home / "models" / "sayer.gguf", WORDS, ends=False)
    random_gguf(home / "models" / "slow.gguf", size=SLOW)
    (home / "models" / "spoilt.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    with generating(home) as server:
        server.wait()
        yield server
