"""Batches: when they are closed, what is in them, and that what befalls one item befalls no other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tests.engine.fakes import FATES, Item, Panic, World, outcome, ticks
from tests.engine.virtual import virtual

from maru.engine.engine import Engine
from maru.engine.errors import DeadlineExceeded, InputError, ModelFailed, OutOfMemory
from maru.engine.events import BatchComputed
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef, Request

WIDE = Limits(running=64, waiting=64, max_batch_size=32, max_queue_delay_s=0.1)
BOTH = pytest.mark.parametrize("threaded", [False, True], ids=["on the loop", "in a thread"])
ERRORS: dict[str, type[Exception]] = {"memory": OutOfMemory, "invalid": InputError, "reject": InputError}


def ids(outputs: Sequence[Any]) -> list[int]:
    return [output[3] for output in outputs]


@BOTH
@virtual
async def test_a_batch_is_closed_when_it_is_full(threaded: bool) -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4, max_queue_delay_s=60.0)) as world:
        model = await world.serve(threaded=threaded)
        began = world.loop.time()
        await asyncio.gather(*(world.ask(i) for i in range(8)))
        assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert world.loop.time() == began + 2, "and doesn't wait for the delay"


@BOTH
@virtual
async def test_a_batch_is_closed_when_its_cost_is_reached(threaded: bool) -> None:
    limits = Limits(running=64, waiting=64, max_batch_size=32, max_batch_cost=100, max_queue_delay_s=60.0)
    async with World(limits) as world:
        model = await world.serve(threaded=threaded)
        began = world.loop.time()
        await asyncio.gather(*(world.ask(Item(i, cost=50)) for i in range(4)))
        assert model.batches == [[0, 1], [2, 3]]
        assert world.loop.time() == began + 2


@BOTH
@virtual
async def test_a_batch_is_closed_when_its_first_item_has_waited_long_enough(threaded: bool) -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4, max_queue_delay_s=0.5)) as world:
        model = await world.serve(threaded=threaded)
        began = world.loop.time()
        first = world.ask(0)
        await asyncio.sleep(0.3)
        second = world.ask(1)
        await first
        assert world.loop.time() == pytest.approx(began + 0.5 + 1)
        assert second.done() and model.batches == [[0, 1]]
        assert outcome(first).timings.batch_s == pytest.approx(0.5)


@virtual
async def test_a_batch_that_holds_all_the_slots_waits_for_nobody() -> None:
    async with World(Limits(running=3, waiting=64, max_batch_size=32, max_queue_delay_s=60.0)) as world:
        await world.serve()
        began = world.loop.time()
        await asyncio.gather(*(world.ask(i) for i in range(6)))
        assert world.loop.time() == began + 2


@virtual
async def test_without_a_delay_batches_form_only_while_the_model_is_busy() -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=32)) as world:
        model = await world.serve()
        first = [world.ask(i) for i in range(3)]
        await ticks(5)
        await asyncio.gather(*first, *(world.ask(i) for i in range(3, 20)))
        assert model.batches == [[0, 1, 2], list(range(3, 20))]


@virtual
async def test_a_delay_whose_item_has_left_holds_nobody_up() -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4, max_queue_delay_s=0.5)) as world:
        await world.serve()
        leaves = world.ask(0)
        await asyncio.sleep(0.4)
        leaves.cancel()
        began = world.loop.time()
        await world.infer(world.request(1))
        assert world.loop.time() == pytest.approx(began + 0.5 + 1)


@virtual
async def test_items_of_one_list_and_of_many_callers_share_batches() -> None:
    async with World(WIDE) as world:
        model = await world.serve()
        lists = [world.ask(0, 1, 2), world.ask(10), world.ask(20, 21)]
        results = await asyncio.gather(*lists)
        assert [ids(result.outputs) for result in results] == [[0, 1, 2], [10], [20, 21]]
        assert model.batches == [[0, 1, 2, 10, 20, 21]]
        assert {result.timings.batch_size for result in results} == {6}


@BOTH
@pytest.mark.parametrize("fate", FATES)
@virtual
async def test_one_failing_item_among_32_leaves_31_right_answers(fate: str, threaded: bool) -> None:
    async with World(WIDE) as world:
        await world.serve(threaded=threaded)
        tasks = [world.ask(Item(i, fate if i == 13 else "ok")) for i in range(32)]
        await asyncio.wait(tasks)
        for i, task in enumerate(tasks):
            if i == 13:
                assert type(task.exception()) is ERRORS.get(fate, ModelFailed)
            else:
                assert ids(task.result().outputs) == [i]


@pytest.mark.parametrize("kind", ["on the loop", "in a thread", "inline"])
@pytest.mark.parametrize("fate", FATES)
@virtual
async def test_one_failing_item_of_a_list_has_its_error_in_its_place(fate: str, kind: str) -> None:
    async with World(WIDE) as world:
        await world.serve(threaded=kind == "in a thread", inline=kind == "inline")
        items = [Item(i, fate if i in (3, 5) else "ok") for i in range(9)]
        whole, parts = world.ask(*items), world.ask(*items, partial=True)
        await asyncio.wait([whole, parts])
        assert type(whole.exception()) is ERRORS.get(fate, ModelFailed)
        for i, output in enumerate(parts.result().outputs):
            if i in (3, 5):
                assert type(output) is ERRORS.get(fate, ModelFailed)
            else:
                assert output[3] == i


@BOTH
@virtual
async def test_what_the_model_raised_is_chained_and_not_shown(threaded: bool) -> None:
    async with World(WIDE) as world:
        await world.serve(threaded=threaded)
        with pytest.raises(ModelFailed) as failed:
            await world.infer(world.request(Item(1, "raises")))
        assert isinstance(failed.value.__cause__, ValueError)
        assert "secret" not in str(failed.value)


@BOTH
@virtual
async def test_a_batch_that_is_too_much_for_the_memory_is_computed_in_parts(threaded: bool) -> None:
    """MemoryError at more than four items at once: nobody notices but the clock."""
    async with World(WIDE) as world:
        model = await world.serve(threaded=threaded)
        answers = model.answers

        def tight(batch: Sequence[Item]) -> list[Any]:
            if len(batch) > 4:
                raise MemoryError
            return answers(batch)

        model.answers = tight  # type: ignore[method-assign]
        results = await asyncio.gather(*(world.ask(i) for i in range(32)))
        assert [ids(result.outputs) for result in results] == [[i] for i in range(32)]


@BOTH
@virtual
async def test_after_a_panic_the_model_goes_on_serving(threaded: bool) -> None:
    async with World(WIDE) as world:
        await world.serve(threaded=threaded)
        for _ in range(3):
            with pytest.raises(ModelFailed) as failed:
                await world.infer(world.request(Item(1, "panics")))
            assert isinstance(failed.value.__cause__, Panic)
        assert ids((await world.infer(world.request(2))).outputs) == [2]


@virtual
async def test_a_model_that_ends_its_own_computation_fails_the_batch_and_hangs_nobody() -> None:
    """A library's own timeout may reach us as CancelledError, though nobody was cancelled."""
    async with World(WIDE) as world:
        model = await world.serve()

        def cancelled(batch: Sequence[Item]) -> list[Any]:
            raise asyncio.CancelledError

        answers, model.answers = model.answers, cancelled  # type: ignore[method-assign]
        tasks = [world.ask(i) for i in range(3)]
        await asyncio.wait(tasks, timeout=5)
        assert [type(task.exception()) for task in tasks] == [ModelFailed] * 3
        model.answers = answers  # type: ignore[method-assign]
        await world.infer(world.request(4))


@BOTH
@virtual
async def test_callers_who_left_are_dropped_when_a_batch_is_formed(threaded: bool) -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4)) as world:
        model = await world.serve(threaded=threaded)
        tasks = [world.ask(i) for i in range(1, 20)]
        await asyncio.sleep(0.5)
        for task in tasks[5:17]:
            task.cancel()
        await asyncio.wait(tasks)
        computed = [item for batch in model.batches for item in batch]
        # Five were in the batch that ran and, in a thread, in the one that was handed over behind it.
        assert computed == [1, 2, 3, 4, 5, 18, 19]
        assert max(len(batch) for batch in model.batches) <= 4


@virtual
async def test_a_computation_that_all_have_left_is_stopped() -> None:
    async with World(WIDE) as world:
        model = await world.serve(base_s=100.0)
        tasks = [world.ask(i) for i in range(3)]
        await asyncio.sleep(1.0)
        assert model.busy == 1
        for task in tasks[:2]:
            task.cancel()
        await asyncio.sleep(1.0)
        assert model.busy == 1, "somebody is still waiting for it"
        tasks[2].cancel()
        await asyncio.sleep(0)
        await ticks(5)
        assert model.busy == 0


@BOTH
@pytest.mark.parametrize("after_s", [0.0, 1.0], ids=["as it comes", "as the batch before its own ends"])
@virtual
async def test_a_caller_may_leave_in_any_instant_and_the_model_goes_on_serving(after_s: float, threaded: bool) -> None:
    """In particular between the making of its batch's task and that task's first step."""
    for turns in range(12):
        async with World(Limits(running=2, waiting=10)) as world:
            await world.serve(threaded=threaded)
            before = world.ask(1) if after_s else None
            await ticks(5)
            leaves = world.ask(2)
            await asyncio.sleep(after_s)
            await ticks(turns)
            leaves.cancel()
            result = await world.infer(world.request(7, deadline_s=10))
            assert ids(result.outputs) == [7]
            assert before is None or before.done()


@virtual
async def test_a_batch_grows_until_a_worker_takes_it() -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4)) as world:
        model = await world.serve(threaded=True)
        tasks = [world.ask(0)]
        await ticks(5)
        tasks += [world.ask(i) for i in range(1, 3)]
        await asyncio.sleep(0.5)
        tasks += [world.ask(i) for i in range(3, 5)]
        await asyncio.gather(*tasks)
        assert model.batches == [[0], [1, 2, 3, 4]]


@virtual
async def test_workers_compute_at_once() -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=1, workers=3)) as world:
        await world.serve(threaded=True)
        began = world.loop.time()
        await asyncio.gather(*(world.ask(i) for i in range(9)))
        assert world.loop.time() == began + 3


@virtual
async def test_a_model_that_needs_no_time_needs_neither_a_thread_nor_a_turn_of_the_loop() -> None:
    async with World(Limits(running=2, waiting=64, max_batch_size=2)) as world:
        model = await world.serve(inline=True)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.ensure_future(count())
        assert ids((await world.infer(world.request(1, 2))).outputs) == [1, 2]
        assert turns == 0 and model.batches == [[1, 2]]
        assert ids((await world.infer(world.request(*range(9)))).outputs) == list(range(9))
        results = await asyncio.gather(*(world.ask(i) for i in range(20)))
        assert [ids(result.outputs) for result in results] == [[i] for i in range(20)]
        counter.cancel()


@virtual
async def test_a_burst_shares_a_batch() -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=32)) as world:
        model = await world.serve()
        await asyncio.gather(*(world.ask(i) for i in range(20)))
        assert model.batches == [list(range(20))]


@BOTH
@virtual
async def test_what_is_queued_is_shared_out_among_the_free_workers(threaded: bool) -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=32, workers=3)) as world:
        model = await world.serve(threaded=threaded)
        began = world.loop.time()
        await asyncio.gather(*(world.ask(i) for i in range(10)))
        assert sorted(len(batch) for batch in model.batches) == [3, 3, 4]
        assert world.loop.time() == began + 1


@BOTH
@virtual
async def test_no_part_of_a_batch_that_was_full_waits_for_the_delay(threaded: bool) -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4, workers=2, max_queue_delay_s=60.0)) as world:
        await world.serve(threaded=threaded)
        began = world.loop.time()
        await asyncio.gather(*(world.ask(i) for i in range(4)))
        assert world.loop.time() == began + 1


@virtual
async def test_what_takes_long_to_prepare_is_prepared_in_a_thread() -> None:
    async with World(WIDE) as world:
        model = await world.serve(prepare_s=0.3)
        began = world.loop.time()
        await asyncio.gather(*(world.ask(i) for i in range(4)))
        assert model.prepared_in_thread == 4
        assert world.loop.time() == pytest.approx(began + 0.3 + 0.1 + 1)


@virtual
async def test_what_is_quickly_prepared_needs_no_thread() -> None:
    async with World(WIDE) as world:
        model = await world.serve()
        await world.infer(world.request(1))
        assert model.prepared_in_thread == 0


@pytest.mark.parametrize("count", [0, 3])
@virtual
async def test_a_prepare_that_loses_or_invents_items_fails_them_and_hangs_nobody(count: int) -> None:
    async with World(WIDE) as world:
        model = await world.serve()
        model.prepare = lambda inputs: [Prepared(Item(1))] * count  # type: ignore[method-assign]
        tasks = [world.ask(1), world.ask(1, 2)]
        await asyncio.wait(tasks, timeout=5)
        assert [type(task.exception()) for task in tasks] == [ModelFailed] * 2


@virtual
async def test_a_panic_in_prepare_is_a_failure_of_the_model() -> None:
    async with World(WIDE) as world:
        model = await world.serve(prepare_s=0.1)

        def panics(inputs: Sequence[Item]) -> list[Prepared | Exception]:
            raise Panic

        model.prepare = panics  # type: ignore[method-assign]
        with pytest.raises(ModelFailed):
            await world.infer(world.request(1))


@virtual
async def test_the_report_of_a_batch_says_what_was_computed() -> None:
    async with World(Limits(running=64, waiting=64, max_batch_size=4, max_queue_delay_s=0.5)) as world:
        await world.serve()
        tasks = [world.ask(Item(i, cost=2.0)) for i in range(3)]
        await asyncio.sleep(0.2)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        (batch,) = world.seen(BatchComputed)
        assert (batch.size, batch.cost, batch.failed) == (2, 4.0, False)
        assert (batch.waited_s, batch.compute_s) == (pytest.approx(0.5), pytest.approx(1.0))


@pytest.mark.parametrize("prepare_s", [0.0, 50.0], ids=["computing", "preparing"])
@virtual
async def test_a_model_is_not_closed_under_a_thread_whose_callers_have_all_left(prepare_s: float) -> None:
    """A native computation can't be stopped. Freeing what it reads would end the process."""
    async with World(WIDE) as world:
        model = await world.serve(threaded=True, base_s=50.0, prepare_s=prepare_s)
        task = world.ask(deadline_s=2.0)
        await asyncio.wait([task])
        assert isinstance(task.exception(), DeadlineExceeded)
        assert await world.engine.manager.unload(model.ref)
        await asyncio.sleep(20)
        assert model.busy and not model.closed
        await asyncio.sleep(40)
        assert model.closed


# With real threads and real time


class Real(Model):
    """Answers after `release` is set. Counts who is in it."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.closed_inside: int | None = None
        self.batches: list[list[Any]] = []
        self.threads: set[str] = set()

    def predict(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.inside += 1
        self.threads.add(threading.current_thread().name)
        self.batches.append(list(batch))
        self.entered.release()
        try:
            assert self.release.wait(30)
            if "panic" in batch:
                raise Panic
            return [value * 2 for value in batch]
        finally:
            self.inside -= 1

    def close(self) -> None:
        self.closed_inside = self.inside


class RealEngine:
    """An engine with one `Real` model, in real time."""

    def __init__(self, limits: Limits) -> None:
        self.model = Real()
        self.engine = Engine()
        self.spec = ModelSpec(ModelRef("m", "1", "d"), lambda: self.model, limits)

    async def __aenter__(self) -> RealEngine:
        self.engine.repository.add(self.spec)
        await self.engine.manager.load(self.spec)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.model.release.set()
        await self.engine.close()

    def ask(self, *inputs: Any) -> asyncio.Task[Any]:
        request = Request("m", inputs, time.monotonic() + 30)
        return asyncio.get_running_loop().create_task(self.engine.infer(request))

    async def entered(self) -> None:
        assert await asyncio.to_thread(self.model.entered.acquire, timeout=30)


def test_threads_real_ones_answer_each_caller_its_own() -> None:
    async def story() -> None:
        async with RealEngine(Limits(running=64, waiting=1000, max_batch_size=8, workers=2)) as real:
            real.model.release.set()
            tasks = [real.ask(*range(i, i + 1 + i % 4)) for i in range(200)]
            results = await asyncio.gather(*tasks)
            for i, result in enumerate(results):
                assert result.outputs == [2 * value for value in range(i, i + 1 + i % 4)]
            assert 1 <= len(real.model.threads) <= 2
            assert max(len(batch) for batch in real.model.batches) <= 8

    asyncio.run(story())


def test_threads_the_loop_is_free_while_the_model_computes_and_a_panic_ends_only_its_item() -> None:
    async def story() -> None:
        async with RealEngine(Limits(running=64, waiting=64, max_batch_size=32)) as real:
            first = real.ask(1)
            await real.entered()
            tasks = [real.ask(i) for i in range(2, 10)] + [real.ask("panic")]
            await asyncio.sleep(0)
            real.model.release.set()
            await asyncio.wait([first, *tasks])
            assert [task.result().outputs for task in (first, *tasks[:-1])] == [[2 * i] for i in range(1, 10)]
            failed = tasks[-1].exception()
            assert isinstance(failed, ModelFailed) and isinstance(failed.__cause__, Panic)

    asyncio.run(story())


def test_threads_a_model_unloaded_while_one_computes_for_nobody_is_closed_after_it() -> None:
    async def story() -> None:
        async with RealEngine(Limits()) as real:
            task = real.ask(1)
            await real.entered()
            task.cancel()
            await asyncio.wait([task])
            assert await real.engine.manager.unload(real.spec.ref)
            await asyncio.sleep(0.05)
            assert real.model.closed_inside is None
            real.model.release.set()
            async with asyncio.timeout(30):
                while real.model.closed_inside is None:
                    await asyncio.sleep(0.005)
            assert real.model.closed_inside == 0

    asyncio.run(story())


def test_threads_closing_the_engine_waits_for_a_computation_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("maru.engine.manager.CLOSE_S", 0.1)

    async def story() -> None:
        async with RealEngine(Limits()) as real:
            task = real.ask(1)
            await real.entered()
            task.cancel()
            await asyncio.wait([task])
            async with asyncio.timeout(30):
                await real.engine.close()
            assert real.model.closed_inside is None, "it is left alone rather than closed in use"

    asyncio.run(story())
