"""A generation service in this process, whose models say what they are told to, when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maru.engine.engine import Engine
from maru.engine.errors import ModelLoadFailed
from maru.engine.memory import Budget
from maru.engine.model import Model
from maru.runtimes.generation.catalogue import Catalogue, Description
from maru.runtimes.generation.types import Finished, Part, Piece, Prompt
from maru.services.llm.configuration import GROUP, Configuration
from maru.services.llm.generation import Served
from maru.services.llm.models import Models
from maru.services.llm.service import Generations

DONE = Finished("stop", 3, 2, 1, 0.25, 0.5)

Script = Callable[[Prompt], AsyncIterator[Part]]


async def two_words(prompt: Prompt) -> AsyncIterator[Part]:
    yield Piece("hello ")
    yield Piece("world")
    yield DONE


class Player(Model):
    """Plays the script of its workshop, whatever that is when it is asked."""

    memory_bytes = 10

    def __init__(self, workshop: Workshop, path: Path) -> None:
        self._workshop = workshop
        self.name = path.stem
        self.content = path.read_text()

    async def stream(self, value: Prompt) -> AsyncIterator[Part]:
        self._workshop.under_way += 1
        self._workshop.asked.append((self.name, value))
        try:
            async for part in self._workshop.script(value):
                yield (
                    replace(part, text=part.text.replace("CONTENT", self.content)) if isinstance(part, Piece) else part
                )
        finally:
            self._workshop.under_way -= 1


class Workshop:
    """The service, its folder, and what happened: `asked` of whom what, answers `under_way`, `reported` ones."""

    def __init__(self, folder: Path, slots: int = 2, **configuration: Any) -> None:
        self.folder = folder
        self.slots = slots
        self.script: Script = two_words
        self.asked: list[tuple[str, Prompt]] = []
        self.under_way = 0
        self.reported: list[Served] = []
        self.engine = Engine(budgets={GROUP: Budget(models=2)})
        self.configuration = Configuration(**configuration)
        catalogue = Catalogue(folder, {"gguf": self, "safetensors": self})
        self.models = Models(self.engine, catalogue, self.configuration)
        timeout_s = self.configuration.timeout_s
        self.generations = Generations(self.engine, self.models, timeout_s, self.reported.append)

    def put(self, name: str, content: str = "") -> None:
        self.folder.mkdir(exist_ok=True)
        partial = self.folder / f".{name}"
        partial.write_text(content)
        partial.replace(self.folder / f"{name}.gguf")

    def describe(self, path: Path) -> Description:
        if path.read_text() == "bad":
            raise ModelLoadFailed("it is bad")
        return Description({"context_length": 512}, 10)

    def open(self, path: Path) -> Model:
        return Player(self, path)

    async def said(self, model: str, text: str = "a") -> str:
        async with self.generations.stream(Prompt(text=text), model) as generation:
            return (await generation.collected()).text


@pytest.fixture
def workshop(tmp_path: Path) -> Callable[..., Workshop]:
    def make(*names: str, **configuration: Any) -> Workshop:
        made = Workshop(tmp_path / "models", **configuration)
        for name in names:
            made.put(name)
        return made

    return make


@pytest.fixture
def run() -> Callable[..., Any]:
    def runner(scene: Any) -> Any:
        return asyncio.run(asyncio.wait_for(scene, 30))

    return runner
