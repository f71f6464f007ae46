"""Known from the engine's own events: who else is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from maru.engine.engine import Engine
from maru.engine.model import Model, ModelSpec
from maru.engine.types import Limits, ModelRef, Request
from maru.services.llm.benchmarks.courtesy import InEngine


class Slow(Model):
    async def stream(self, value: float) -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(value)


def serving() -> Engine:
    engine = Engine()
    for name in ("llm", "other"):
        spec = ModelSpec(ModelRef(name, "1", name), Slow, Limits(running=2, waiting=8), on_demand=True)
        engine.repository.add(spec)
    engine.lifecycle.advance("ready")
    return engine


async def ask(engine: Engine, model: str, seconds: float) -> None:
    request = Request(model, [seconds], engine.clock() + 30)
    async with engine.stream(request) as stream:
        async for _ in stream.parts:
            pass


async def own(engine: Engine, courtesy: InEngine, seconds: float) -> str:
    """A request of the benchmark's: what became of it."""
    try:
        async with asyncio.timeout(None) as cut:
            with courtesy.ours(cut):
                await ask(engine, "llm", seconds)
    except TimeoutError:
        return "cut"
    return "done"


def run(work: Any) -> Any:
    async def within() -> Any:
        engine = serving()
        courtesy = InEngine(engine.events, quiet_s=0.1)
        try:
            return await work(engine, courtesy)
        finally:
            await engine.close()

    return asyncio.run(asyncio.wait_for(within(), 30))


def test_its_own_requests_are_nobody_else() -> None:
    async def work(engine: Engine, courtesy: InEngine) -> None:
        ended = await asyncio.gather(*(own(engine, courtesy, 0.02) for _ in range(6)))
        assert ended == ["done"] * 6, "though they fill the line and wait in it"
        async with asyncio.timeout(0.05):
            await courtesy.quiet()

    run(work)


def test_somebody_who_comes_has_all_of_them_cut_off_and_is_waited_for() -> None:
    async def work(engine: Engine, courtesy: InEngine) -> None:
        ours = [asyncio.create_task(own(engine, courtesy, 5.0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        theirs = asyncio.create_task(ask(engine, "llm", 0.3))
        assert await asyncio.gather(*ours) == ["cut"] * 3
        assert asyncio.get_running_loop().time() - began < 0.25
        await courtesy.quiet()
        assert theirs.done() and asyncio.get_running_loop().time() - began >= 0.38, "and a moment longer"
        assert await own(engine, courtesy, 0.01) == "done"

    run(work)


def test_whoever_uses_another_model_shares_the_machine_too() -> None:
    async def work(engine: Engine, courtesy: InEngine) -> None:
        ours = asyncio.create_task(own(engine, courtesy, 5.0))
        await asyncio.sleep(0.05)
        theirs = asyncio.create_task(ask(engine, "other", 0.1))
        assert await ours == "cut"
        await theirs

    run(work)


def test_people_who_come_and_go_quickly_are_no_trouble() -> None:
    """While ours are on their way out somebody else comes, and leaves, and comes."""

    async def work(engine: Engine, courtesy: InEngine) -> None:
        async def visits() -> None:
            for _ in range(30):
                await ask(engine, "llm", 0.0)

        async def benchmark() -> list[str]:
            return [await own(engine, courtesy, 0.01) for _ in range(30)]

        ended, *_ = await asyncio.gather(benchmark(), visits(), visits())
        assert len(ended) == 30 and set(ended) <= {"cut", "done"}
        await courtesy.quiet()
        assert await own(engine, courtesy, 0.01) == "done"

    run(work)
