"""Several answers to one request, made at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from maru.runtimes.generation.types import Part
from maru.services.llm.generation import Collected, Generation

AHEAD = 64
"""Parts that may wait for a reader who is slow, before the models do."""

Opening = AbstractAsyncContextManager[Generation]
Parts = AsyncIterator[tuple[int, Generation, Part]]


async def collect(openings: Sequence[Opening]) -> list[Collected]:
    """All answers, in order; the first error among them, and then none goes on."""
    if len(openings) == 1:
        return [await _collected(openings[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_collected(opening)) for opening in openings]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _collected(opening: Opening) -> Collected:
    async with opening as generation:
        return await generation.collected()


@asynccontextmanager
async def merged(openings: Sequence[Opening]) -> AsyncIterator[Parts]:
    """`async with` it: the parts of all answers as they are made, each with the number of its answer. Entered when
    the first answer has begun; leaving ends all of them."""
    if len(openings) == 1:
        async with openings[0] as generation, aclosing(_alone(generation)) as parts:
            yield parts
        return
    try:
        async with asyncio.TaskGroup() as group:
            queue: asyncio.Queue[tuple[int, Generation, Part] | None] = asyncio.Queue(AHEAD)
            begun = asyncio.Event()

            async def pour(index: int, opening: Opening) -> None:
                async with opening as generation:
                    begun.set()
                    async for part in generation.parts:
                        await queue.put((index, generation, part))
                await queue.put(None)

            tasks = [group.create_task(pour(index, opening)) for index, opening in enumerate(openings)]
            await begun.wait()
            yield _drawn(queue, len(openings))
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _alone(generation: Generation) -> AsyncGenerator[tuple[int, Generation, Part], None]:
    async for part in generation.parts:
        yield 0, generation, part


async def _drawn(queue: asyncio.Queue[tuple[int, Generation, Part] | None], answers: int) -> Parts:
    while answers:
        drawn = await queue.get()
        if drawn is None:
            answers -= 1
        else:
            yield drawn
