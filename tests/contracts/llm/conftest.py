"""Generation servers as processes of their own, over folders of models that tests change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Server, serving
from tests.fixtures_llm import SLOW, random_gguf, reciting_gguf

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
    with serving(GenerationServer, "tests.contracts.llm.serve", home, settings) as server:
        yield server


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
