"""A source whose answers are known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from maru.runtimes.generation.types import Finished, Part, Piece, Progress, Prompt, Sampling


def prompt(text: str = "a b", max_tokens: int = 3) -> Prompt:
    return Prompt(text=text, sampling=Sampling(max_tokens=max_tokens))


class Answers:
    """Says `max_tokens` words, `pace_s` before each. `fault` is raised in the place of the n-th answer, if any."""

    def __init__(self, pace_s: float = 0.0, fault: Callable[[int], Exception | None] = lambda number: None) -> None:
        self.pace_s = pace_s
        self.asked: list[Prompt] = []
        self.times: list[float] = []
        self.now = 0
        self.most = 0
        self._fault = fault

    @asynccontextmanager
    async def stream(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[Part]]:
        self.asked.append(prompt)
        self.times.append(asyncio.get_running_loop().time())
        fault = self._fault(len(self.asked) - 1)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if fault is not None and str(fault) != "later":
                raise fault
            yield self._parts(prompt, fault)
        finally:
            self.now -= 1

    async def _parts(self, prompt: Prompt, fault: Exception | None) -> AsyncIterator[Part]:
        yield Progress(1, 2)
        count = prompt.sampling.max_tokens or 1
        yield Piece("")
        for number in range(count):
            await asyncio.sleep(self.pace_s)
            yield Piece(f"w{number} ")
            if fault is not None:
                raise fault
        yield Finished("length", 2, count, 1, 0.5, 0.25)
