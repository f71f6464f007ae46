"""Asking a model, and what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.types import Finished, Piece, Progress, Prompt, Sampling

T = TypeVar("T")

GREEDY = Sampling(temperature=0.0, max_tokens=64)


@dataclass
class Said:
    text: str
    pieces: list[Piece]
    progress: list[Progress]
    finished: Finished


async def said(model: GenerationModel, prompt: Prompt | str) -> Said:
    """The whole answer, whose parts came in their order."""
    parts = []
    asked = Prompt(text=prompt, sampling=GREEDY) if isinstance(prompt, str) else prompt
    async with aclosing(model.stream(asked)) as stream:  # type: ignore[type-var]
        async for part in stream:
            parts.append(part)
    order = [{Progress: 0, Piece: 1, Finished: 2}[type(part)] for part in parts]
    assert order == sorted(order) and order.count(2) == 1
    pieces = [part for part in parts if isinstance(part, Piece)]
    assert all(piece.text or piece.tool_calls or piece.logprobs for piece in pieces)
    text = "".join(piece.text for piece in pieces)
    return Said(text, pieces, [part for part in parts if isinstance(part, Progress)], parts[-1])


def run(work: Coroutine[Any, Any, T], within_s: float = 60.0) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(within_s):
            return await work

    return asyncio.run(bounded())
