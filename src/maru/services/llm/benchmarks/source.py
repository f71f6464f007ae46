"""Where answers come from: this process's engine, or a server at a URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

from maru.auth.principal import Principal
from maru.runtimes.generation.types import Part, Prompt
from maru.services.llm.service import Generations

BENCHMARK = Principal("benchmark", weight=0.01)
"""Whose requests they are in the engine: the last in a fair line."""


class Source(Protocol):
    """Something that generates."""

    def stream(self, prompt: Prompt) -> AbstractAsyncContextManager[AsyncIterator[Part]]:
        """`async with` it: the parts of one answer. Leaving early stops it.

        Raises what keeps it from being made, on entering or while it comes.
        """
        ...


class EngineSource:
    """One model of the engine, by the road that every request takes."""

    def __init__(self, generations: Generations, model_id: str, timeout_s: float) -> None:
        self._generations = generations
        self._model_id = model_id
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def stream(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[Part]]:
        asked = self._generations.stream(
            prompt, self._model_id, principal=BENCHMARK, operation="benchmark", timeout_s=self._timeout_s
        )
        async with asked as generation, aclosing(generation.parts) as parts:  # type: ignore[type-var]
            yield parts
