"""A runtime whose models answer at a known pace: `pace` seconds to the first word and between any two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from maru.engine.errors import ModelLoadFailed, OutOfMemory
from maru.engine.model import Model
from maru.runtimes.generation.catalogue import Description
from maru.runtimes.generation.types import Finished, Part, Piece, Progress, Prompt


class Paced(Model):
    """Says `max_tokens` words, or 8. A prompt that begins with `fail` is not answered."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self.memory_bytes = 1234

    async def stream(self, value: Prompt) -> AsyncIterator[Part]:
        said = value.text or str((value.messages or [{}])[-1].get("content"))
        if said.startswith("fail"):
            raise OutOfMemory("out of memory")
        count = value.sampling.max_tokens or 8
        yield Progress(1, 1)
        for number in range(count):
            await asyncio.sleep(self._pace_s)
            yield Piece(f"word{number} ")
        yield Finished("length", len(said.split()), count, 0, self._pace_s, self._pace_s * count)


class PacedRuntime:
    """The name of a file says how many milliseconds its model takes for a word: `any-5.gguf`."""

    slots = 8

    def describe(self, path: Path) -> Description:
        if path.read_text() == "bad":
            raise ModelLoadFailed("it is a bad file")
        return Description({"context_length": 512, "architecture": "paced"}, 1000)

    def open(self, path: Path) -> Paced:
        return Paced(float(path.stem.rpartition("-")[2]) / 1000)
