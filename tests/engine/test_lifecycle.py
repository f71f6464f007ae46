"""starting → ready → draining → stopped, and what becomes of the work under way."""

from __future__ import annotations

import asyncio

import pytest
from tests.engine.fakes import World, ticks
from tests.engine.virtual import virtual

from maru.engine.errors import Draining
from maru.engine.events import Events, LifecycleChanged, RequestFinished
from maru.engine.lifecycle import Lifecycle


def test_the_state_goes_forward_only_and_each_is_announced_once() -> None:
    states: list[str] = []
    events = Events()
    events.subscribe(lambda event: states.append(event.state) if isinstance(event, LifecycleChanged) else None)
    lifecycle = Lifecycle(events)
    for state in ("ready", "ready", "starting", "draining", "ready", "stopped", "stopped", "draining"):
        lifecycle.advance(state)
    assert states == ["ready", "draining", "stopped"]
    assert lifecycle.state == "stopped"


@virtual
async def test_draining_that_is_only_announced_still_takes_work() -> None:
    """Balancers need a moment to look elsewhere."""
    async with World() as world:
        await world.serve()
        world.engine.lifecycle.advance("draining")
        await world.infer(world.request())


@virtual
async def test_a_drain_waits_for_what_runs_and_what_waits_and_refuses_what_comes() -> None:
    async with World() as world:
        await world.serve()
        tasks = [world.ask() for _ in range(6)]
        await ticks(5)
        began = world.loop.time()
        drain = asyncio.ensure_future(world.engine.drain(grace_s=30))
        await asyncio.sleep(1)
        with pytest.raises(Draining) as refused:
            await world.infer(world.request())
        assert refused.value.retry_after_s > 0
        assert await drain is True
        assert world.loop.time() == began + 3
        assert all(task.result() for task in tasks)
        assert world.outcomes[id(world.asked[-1])].outcome == "refused"


@virtual
async def test_a_drain_of_an_idle_engine_is_done_at_once() -> None:
    async with World() as world:
        await world.serve()
        began = world.loop.time()
        assert await world.engine.drain(grace_s=30) is True
        assert world.loop.time() == began


@virtual
async def test_when_the_grace_is_over_streams_are_told_to_end_and_the_drain_says_so() -> None:
    async with World() as world:
        await world.serve(base_s=4.0)
        got: list[str] = []

        async def read() -> None:
            async with world.stream(world.request(deadline_s=100)) as stream:
                ending = asyncio.ensure_future(world.engine.lifecycle.ending.wait())
                parts = aiter(stream.parts)
                while not ending.done():
                    part = asyncio.ensure_future(anext(parts))
                    await asyncio.wait([part, ending], return_when=asyncio.FIRST_COMPLETED)
                    if not part.done():
                        part.cancel()
                        await asyncio.wait([part])
                        got.append("server_shutdown")
                    else:
                        got.append("part")
                ending.cancel()

        reader = asyncio.ensure_future(read())
        await ticks(5)
        assert await world.engine.drain(grace_s=10) is False
        await reader
        assert got == ["part", "part", "server_shutdown"]
        assert len(world.seen(RequestFinished)) == 1


@virtual
async def test_a_drain_that_is_asked_for_twice_is_one() -> None:
    async with World() as world:
        await world.serve()
        task = world.ask()
        await ticks(5)
        assert all(await asyncio.gather(world.engine.drain(30), world.engine.drain(30)))
        assert task.done()
        assert [event.state for event in world.seen(LifecycleChanged)] == ["ready", "draining"]
