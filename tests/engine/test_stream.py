"""Answers that come in parts: what is held meanwhile, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.engine.fakes import Item, World, ticks
from tests.engine.virtual import virtual

from maru.engine.errors import DeadlineExceeded, EngineError, InputError, ModelFailed, QueueFull
from maru.engine.events import RequestFinished
from maru.engine.types import Limits

ONE = Limits(running=1, waiting=1)


def ends(world: World) -> list[str]:
    return [event.outcome for event in world.seen(RequestFinished)]


@virtual
async def test_the_parts_come_as_they_are_made() -> None:
    async with World(ONE) as world:
        await world.serve()
        began = world.loop.time()
        times, parts = [], []
        async with world.stream(world.request(7)) as stream:
            async for part in stream.parts:
                times.append(world.loop.time() - began)
                parts.append(part)
        assert [part[3:] for part in parts] == [(7, 0), (7, 1), (7, 2)]
        assert times == [1.0, 2.0, 3.0]
        assert (str(stream.ref), stream.timings.compute_s, stream.timings.total_s) == ("m@1", 3.0, 3.0)
        assert ends(world) == ["ok"]


@virtual
async def test_the_slot_and_the_version_are_held_until_the_context_is_left_however_much_was_read() -> None:
    async with World(ONE) as world:
        old = await world.serve()
        async with world.stream(world.request()) as stream:
            async for _ in stream.parts:
                pass
            await asyncio.sleep(5)
            assert world.line().running == 1
            assert not await world.engine.manager.unload(old.ref)
            swap = asyncio.ensure_future(world.engine.manager.swap(world.spec("m", "2")))
            await asyncio.sleep(5)
            assert not swap.done()
        assert world.line().running == 0
        await swap


@virtual
async def test_leaving_early_stops_the_model_at_once() -> None:
    async with World(ONE) as world:
        model = await world.serve()
        async with world.stream(world.request()) as stream:
            await anext(stream.parts)
            assert model.streams_open == 1
        assert model.streams_open == 0 and world.line().running == 0
        assert ends(world) == ["ok"]


@virtual
async def test_a_stream_that_nobody_began_to_read_is_none() -> None:
    async with World(ONE) as world:
        model = await world.serve()
        async with world.stream(world.request()):
            pass
        assert model.streams_open == 0 and ends(world) == ["ok"]


@virtual
async def test_a_stream_is_ended_at_its_deadline() -> None:
    async with World(ONE) as world:
        model = await world.serve(base_s=2.0)
        began = world.loop.time()
        read = 0
        with pytest.raises(DeadlineExceeded) as late:
            async with world.stream(world.request(deadline_s=5.0)) as stream:
                async for _ in stream.parts:
                    read += 1
        assert late.value.stage == "computing" and read == 2
        assert world.loop.time() == began + 5
        assert model.streams_open == 0 and ends(world) == ["deadline"]


@virtual
async def test_a_slow_reader_does_not_outlive_the_deadline() -> None:
    async with World(ONE) as world:
        await world.serve()
        with pytest.raises(DeadlineExceeded):
            async with world.stream(world.request(deadline_s=5.0)) as stream:
                async for _ in stream.parts:
                    await asyncio.sleep(100)
        assert world.line().running == 0


@pytest.mark.parametrize("when", ["waiting", "computing", "between parts"])
@virtual
async def test_a_reader_that_is_cancelled_gives_all_back(when: str) -> None:
    async with World(ONE) as world:
        model = await world.serve()

        async def read() -> None:
            async with world.stream(world.request()) as stream:
                async for _ in stream.parts:
                    await asyncio.sleep(0.5)

        first = asyncio.ensure_future(read())
        await ticks(3)
        task = asyncio.ensure_future(read()) if when == "waiting" else first
        await asyncio.sleep(0.3 if when != "between parts" else 1.2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        if when == "waiting":
            await first
        assert model.streams_open == 0 and world.line().running == 0
        assert "cancelled" in ends(world)


@virtual
async def test_an_error_in_the_middle_is_the_models_and_comes_after_the_parts_before_it() -> None:
    async with World(ONE) as world:
        model = await world.serve()
        read = 0
        with pytest.raises(ModelFailed) as failed:
            async with world.stream(world.request(Item(1, "raises"))) as stream:
                async for _ in stream.parts:
                    read += 1
        assert read == 1 and isinstance(failed.value.__cause__, ValueError)
        assert "secret" not in str(failed.value)
        assert model.streams_open == 0 and ends(world) == ["failed"]


@virtual
async def test_an_error_of_the_reader_is_the_readers() -> None:
    """A client that can't be written to is no failure of the model."""
    async with World(ONE) as world:
        model = await world.serve()
        with pytest.raises(ConnectionResetError):
            async with world.stream(world.request()) as stream:
                async for _ in stream.parts:
                    raise ConnectionResetError
        assert model.streams_open == 0 and world.line().running == 0


@pytest.mark.parametrize("fate", ["invalid", "reject"])
@virtual
async def test_an_input_that_cannot_be_prepared_is_refused_before_the_first_part(fate: str) -> None:
    async with World(ONE) as world:
        await world.serve()
        with pytest.raises(InputError):
            async with world.stream(world.request(Item(1, fate))):
                pytest.fail("there is no stream")
        assert ends(world) == ["input"]


@virtual
async def test_a_model_that_does_not_stream_fails_as_models_do() -> None:
    async with World(ONE) as world:
        model = await world.serve()

        def none(value: Any) -> AsyncIterator[Any]:
            raise TypeError("does not stream")

        model.stream = none  # type: ignore[method-assign]
        with pytest.raises(EngineError):
            async with world.stream(world.request()) as stream:
                await anext(stream.parts)


@virtual
async def test_an_iterator_that_is_no_generator_is_closed_too() -> None:
    closed = 0

    class Parts:
        def __aiter__(self) -> Parts:
            return self

        async def __anext__(self) -> int:
            return 1

        async def aclose(self) -> None:
            nonlocal closed
            closed += 1

    async with World(ONE) as world:
        model = await world.serve()
        model.stream = lambda value: Parts()  # type: ignore[method-assign]
        async with world.stream(world.request()) as stream:
            assert await anext(stream.parts) == 1
        assert closed == 1


@virtual
async def test_streams_wait_in_the_same_line_as_all_others() -> None:
    async with World(ONE) as world:
        await world.serve()
        async with world.stream(world.request()):
            waits = world.ask()
            await ticks(5)
            with pytest.raises(QueueFull):
                async with world.stream(world.request()):
                    pytest.fail("there is no slot")
            assert not waits.done()
        await waits
