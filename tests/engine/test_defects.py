"""Defects of well-known systems that must be impossible here.

Each test is named after the peer and what it was found to do wrong.
"""

from __future__ import annotations

import asyncio
import inspect

import pytest
from tests.engine.fakes import World, ticks
from tests.engine.virtual import virtual

from maru.engine import manager
from maru.engine.errors import ModelLoadFailed, QueueFull
from maru.engine.types import Limits

BATCH = Limits(running=8, waiting=8, max_batch_size=3, max_queue_delay_s=0.1)


@virtual
async def test_mlserver_cache_key_without_model_and_version() -> None:
    """MLServer keys its one cache on the payload alone: models share answers, and a reload keeps the old."""
    async with World(BATCH) as world:
        for name in ("m", "other"):
            await world.serve(name, cached=True)
        for name in ("m", "other"):
            result = await world.infer(world.request(1, model=name, cached=True))
            assert (result.outputs[0][0], result.cache) == (name, "miss")
        await world.engine.manager.swap(world.spec("m", "2", cached=True))
        result = await world.infer(world.request(1, cached=True))
        assert (result.outputs[0][1], result.cache) == ("2", "miss")


@pytest.mark.parametrize("threaded", [False, True], ids=["on the loop", "in a thread"])
@pytest.mark.parametrize("when", [0.05, 0.5], ids=["queued", "computing"])
@virtual
async def test_mlserver_cancelling_one_request_hangs_its_batch_neighbours(when: float, threaded: bool) -> None:
    """MLServer: three in one batch, the second is cancelled, the third never answers."""
    async with World(BATCH) as world:
        await world.serve(threaded=threaded)
        first, second, third = (world.ask(i, deadline_s=10) for i in range(3))
        await asyncio.sleep(when)
        second.cancel()
        await asyncio.wait([first, second, third])
        assert second.cancelled()
        assert [task.result().outputs[0][3] for task in (first, third)] == [0, 2]


@virtual
async def test_mlserver_reload_unloads_under_requests_in_flight() -> None:
    async with World(BATCH) as world:
        old = await world.serve(base_s=10.0)
        in_flight = world.ask()
        await asyncio.sleep(1)
        await world.engine.manager.swap(world.spec("m", "2"))
        assert in_flight.result().ref == old.ref, "the swap returned after its answer, which was right"


@virtual
async def test_mlserver_cache_evicts_first_in_first_out_and_never_expires() -> None:
    async with World(BATCH, cache_ttl_s=60.0) as world:
        await world.serve(cached=True)
        await world.infer(world.request(1, cached=True))
        await asyncio.sleep(61)
        assert (await world.infer(world.request(1, cached=True))).cache == "miss"


@virtual
async def test_ray_multiplex_one_lock_is_held_through_a_load() -> None:
    """Ray Serve, and document 004's sketch: whoever misses waits for the slow load of another model."""
    async with World(BATCH) as world:
        for name, load_s in (("slow", 60.0), ("quick", 1.0)):
            world.engine.repository.add(world.spec(name, load_s=load_s, on_demand=True))
        slow = world.ask(model="slow", deadline_s=100)
        await asyncio.sleep(1)
        began = world.loop.time()
        await world.infer(world.request(model="quick"))
        assert world.loop.time() - began < 3
        await slow


@virtual
async def test_ray_multiplex_evicts_a_model_in_use() -> None:
    async with World(BATCH, max_models=1) as world:
        used = await world.serve("used", base_s=10.0)
        world.engine.repository.add(world.spec("other", on_demand=True))
        task = world.ask(model="used")
        await asyncio.sleep(1)
        other = world.ask(model="other")
        await asyncio.sleep(5)
        assert not used.closed
        await task
        assert other.exception() is not None


@virtual
async def test_document_004_a_load_that_fails_has_already_evicted_a_good_model() -> None:
    async with World(BATCH, max_models=1, max_model_bytes=100) as world:
        await world.serve("good", memory_bytes=60)
        with pytest.raises(ModelLoadFailed):
            await world.engine.manager.load(world.spec("bad", memory_bytes=60, fails_to_load=OSError()))
        await asyncio.sleep(5)
        await world.infer(world.request(model="good"))


def test_document_004_lock_as_a_class_attribute() -> None:
    """It would belong to whichever event loop used it first."""
    for cls in (manager.Manager, manager.Lease, manager.Resident):
        held = [value for _, value in inspect.getmembers(cls) if isinstance(value, asyncio.Lock | asyncio.Event)]
        assert not held


@virtual
async def test_litserve_unbounded_queue() -> None:
    async with World(BATCH) as world:
        await world.serve()
        tasks = [world.ask(deadline_s=100) for _ in range(1000)]
        await ticks(6)
        assert sum(task.done() for task in tasks) == 1000 - 16
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("threaded", [False, True], ids=["on the loop", "in a thread"])
@virtual
async def test_litserve_a_client_that_left_is_still_computed_for(threaded: bool) -> None:
    async with World(BATCH) as world:
        model = await world.serve(threaded=threaded)
        running = world.ask(0)
        await asyncio.sleep(0.5)
        gone = [world.ask(i) for i in range(1, 12)]
        await asyncio.sleep(0.3)
        for task in gone:
            task.cancel()
        await running
        await world.settle()
        assert model.batches == [[0]]


@virtual
async def test_litserve_no_drain_and_vllm_shutdown_aborts() -> None:
    async with World(BATCH) as world:
        await world.serve(base_s=5.0)
        tasks = [world.ask() for _ in range(10)]
        await ticks(6)
        assert await world.engine.drain(grace_s=60)
        assert all(task.result().outputs for task in tasks)


@virtual
async def test_bentoml_429_with_no_retry_after() -> None:
    async with World(BATCH) as world:
        await world.serve()
        await asyncio.gather(*(world.ask() for _ in range(16)))
        tasks = [world.ask() for _ in range(30)]
        await asyncio.wait(tasks)
        refused = [error for task in tasks if (error := task.exception())]
        assert len(refused) == 14
        assert all(isinstance(error, QueueFull) and error.retry_after_s > 0 for error in refused)
