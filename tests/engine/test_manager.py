"""Which models are in memory, and that nobody notices how they got there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.fakes import Fake, Script, World, outcome, ticks
from tests.engine.virtual import virtual

from maru.engine.errors import (
    DeadlineExceeded,
    Draining,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    NoRoom,
    OutOfMemory,
)
from maru.engine.events import ModelChanged
from maru.engine.memory import Budget
from maru.engine.types import Limits, ModelRef

LIMITS = Limits(running=100, waiting=100, max_batch_size=100)


def names(world: World) -> list[str]:
    return sorted(str(resident.spec.ref) for resident in world.engine.manager)


# Loading


@virtual
async def test_a_stampede_on_a_cold_model_loads_it_once() -> None:
    async with World(LIMITS) as world:
        script = Script(LIMITS, load_s=10.0)
        world.engine.repository.add(world.spec(script=script, on_demand=True))
        results = await asyncio.gather(*(world.ask() for _ in range(100)))
        assert script.loads == 1 and len(results) == 100


@virtual
async def test_a_model_that_is_not_loaded_on_demand_is_refused_until_it_is_loaded() -> None:
    async with World(LIMITS) as world:
        spec = world.spec(load_s=40.0)
        world.engine.repository.add(spec)
        with pytest.raises(ModelNotReady):
            await world.infer(world.request())
        load = asyncio.ensure_future(world.engine.manager.load(spec))
        await asyncio.sleep(5)
        assert world.engine.manager.loading(spec.ref)
        with pytest.raises(ModelNotReady):
            await world.infer(world.request())
        await load
        await world.infer(world.request())


@virtual
async def test_whoever_asks_too_early_is_told_how_long_loading_takes() -> None:
    async with World(LIMITS) as world:
        spec = world.spec(load_s=40.0)
        world.engine.repository.add(spec)
        await world.engine.manager.load(spec)
        await world.engine.manager.unload(spec.ref)
        load = asyncio.ensure_future(world.engine.manager.load(spec))
        await asyncio.sleep(10)
        with pytest.raises(ModelNotReady) as refused:
            await world.infer(world.request())
        assert refused.value.retry_after_s == pytest.approx(30)
        await asyncio.sleep(refused.value.retry_after_s + 0.001)
        await world.infer(world.request())
        await load


@virtual
async def test_a_hit_is_not_delayed_by_the_load_of_another_model() -> None:
    async with World(LIMITS) as world:
        await world.serve("hot", base_s=0.02)
        world.engine.repository.add(world.spec("cold", load_s=60.0, on_demand=True))
        cold = world.ask(model="cold", deadline_s=100)
        await asyncio.sleep(1)
        began = world.loop.time()
        await world.infer(world.request(model="hot"))
        assert world.loop.time() == pytest.approx(began + 0.02)
        await cold


@virtual
async def test_loads_of_different_models_run_beside_each_other() -> None:
    async with World(LIMITS) as world:
        for name in ("a", "b"):
            world.engine.repository.add(world.spec(name, load_s=10.0, on_demand=True))
        began = world.loop.time()
        await asyncio.gather(world.ask(model="a"), world.ask(model="b"))
        assert world.loop.time() == began + 10 + 1


@virtual
async def test_a_load_whose_only_waiter_left_goes_on_for_the_next() -> None:
    async with World(LIMITS) as world:
        script = Script(LIMITS, load_s=10.0)
        world.engine.repository.add(world.spec(script=script, on_demand=True))
        task = world.ask()
        await asyncio.sleep(4)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(4)
        began = world.loop.time()
        await world.infer(world.request())
        assert script.loads == 1 and world.loop.time() == began + 2 + 1


@virtual
async def test_a_deadline_ends_the_wait_for_a_load() -> None:
    async with World(LIMITS) as world:
        world.engine.repository.add(world.spec(load_s=100.0, on_demand=True))
        with pytest.raises(DeadlineExceeded):
            await world.infer(world.request(deadline_s=3))
        assert world.line().running == 0


@virtual
async def test_a_load_that_fails_while_nobody_waits_is_no_complaint() -> None:
    async with World(LIMITS) as world:
        world.engine.repository.add(world.spec(load_s=5.0, fails_to_load=OSError(), on_demand=True))
        task = world.ask()
        await asyncio.sleep(1)
        task.cancel()


@pytest.mark.parametrize("how", ["load", "warm", "panic", "memory"])
@virtual
async def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again_by_the_next(how: str) -> None:
    async with World(LIMITS) as world:
        errors: dict[str, BaseException] = {
            "load": OSError("/secret/path"),
            "panic": SystemExit(1),
            "memory": MemoryError(),
        }
        script = Script(LIMITS, fails_to_load=errors.get(how), fails_to_warm=how == "warm")
        world.engine.repository.add(world.spec(script=script, on_demand=True))
        tasks = [world.ask() for _ in range(5)]
        await asyncio.wait(tasks)
        assert {type(task.exception()) for task in tasks} == {ModelLoadFailed}
        assert "secret" not in str(tasks[0].exception())
        assert script.loads == 1
        assert all(model.closed for model in world.opened), "what could not be warmed is closed"
        script.fails_to_load, script.fails_to_warm = None, False
        await world.infer(world.request())


@virtual
async def test_each_load_is_reported_once_from_its_beginning_to_its_end() -> None:
    async with World(LIMITS, max_models=1) as world:
        good, bad = world.spec("good"), world.spec("bad", fails_to_load=OSError())
        for spec in (good, bad):
            world.engine.repository.add(spec)
        await world.engine.manager.load(good)
        with pytest.raises(ModelLoadFailed):
            await world.engine.manager.load(bad)
        assert world.changes() == ["good@1 loading", "good@1 loaded", "bad@1 loading", "bad@1 failed"]
        loaded, failed = world.seen(ModelChanged)[1], world.seen(ModelChanged)[3]
        assert loaded.seconds == 1.0 and isinstance(failed.error, OSError)


# Bounds


async def three(world: World, **spec: Any) -> list[Fake]:
    """Models a, b and c, loaded and used in this order, a second apart."""
    models = []
    for name in "abc":
        models.append(await world.serve(name, **spec))
        await world.infer(world.request(model=name))
    return models


@virtual
async def test_beyond_the_count_the_least_recently_used_leaves() -> None:
    async with World(LIMITS, max_models=3) as world:
        a, b, c = await three(world, on_demand=True)
        await world.infer(world.request(model="a"))
        await world.serve("d")
        assert names(world) == ["a@1", "c@1", "d@1"]
        await asyncio.sleep(1)
        assert b.closed and not a.closed and not c.closed
        assert world.changes().count("b@1 evicted") == 1


@virtual
async def test_beyond_the_bytes_as_many_leave_as_must_and_no_more() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        await three(world, memory_bytes=30, on_demand=True)
        await world.serve("d", memory_bytes=40)
        assert names(world) == ["b@1", "c@1", "d@1"]
        await world.serve("e", memory_bytes=60)
        assert names(world) == ["d@1", "e@1"]


@virtual
async def test_what_a_model_takes_is_believed_when_it_is_loaded_and_not_before() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        await three(world, memory_bytes=30, on_demand=True)
        world.loop.on_idle = None  # the bound is broken for a while, since nobody knew
        await world.serve("d", memory_bytes=60, expected_bytes=5)
        assert names(world) == ["c@1", "d@1"]


@virtual
async def test_memory_is_given_back_before_it_is_taken_again() -> None:
    """Loading while the evicted model is still being closed would hold both."""
    async with World(LIMITS, max_model_bytes=100) as world:
        await world.serve("a", memory_bytes=60, close_s=20.0, on_demand=True)
        began = world.loop.time()
        await world.serve("b", memory_bytes=60, load_s=1.0)
        assert world.loop.time() == began + 20 + 1
        assert world.most_bytes == 60


@virtual
async def test_loads_at_the_same_time_do_not_both_take_the_last_room() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        for name in "ab":
            world.engine.repository.add(world.spec(name, memory_bytes=60, load_s=5.0, on_demand=True))
        first = world.ask(model="a")
        await asyncio.sleep(1)
        with pytest.raises(NoRoom):
            await world.infer(world.request(model="b"))
        await first
        await world.infer(world.request(model="b"))
        assert world.most_bytes == 60


@virtual
async def test_a_pinned_model_stays() -> None:
    async with World(LIMITS, max_models=2) as world:
        await world.serve("pinned", pinned=True)
        await world.serve("a", on_demand=True)
        await world.serve("b", on_demand=True)
        assert names(world) == ["b@1", "pinned@1"]


@pytest.mark.parametrize("bounds", [{"max_models": 2}, {"max_model_bytes": 100}])
@virtual
async def test_when_every_model_is_in_use_the_answer_is_no_at_once(bounds: dict[str, Any]) -> None:
    async with World(LIMITS, **bounds) as world:
        for name in "ab":
            await world.serve(name, memory_bytes=50, base_s=20.0)
        world.engine.repository.add(world.spec("c", memory_bytes=50, on_demand=True))
        busy = [world.ask(model=name) for name in "ab"]
        await asyncio.sleep(1)
        began = world.loop.time()
        with pytest.raises(NoRoom) as refused:
            await world.infer(world.request(model="c"))
        assert world.loop.time() == began and refused.value.retry_after_s > 0
        assert names(world) == ["a@1", "b@1"]
        await asyncio.gather(*busy)
        await world.infer(world.request(model="c"))


@virtual
async def test_a_model_larger_than_all_memory_is_refused_before_anything_leaves() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        await three(world, memory_bytes=30)
        world.engine.repository.add(world.spec("huge", memory_bytes=101, on_demand=True))
        with pytest.raises(OutOfMemory):
            await world.infer(world.request(model="huge"))
        assert names(world) == ["a@1", "b@1", "c@1"] and len(world.opened) == 3


@virtual
async def test_a_model_that_turns_out_larger_than_all_memory_leaves_and_is_reported() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        await three(world, memory_bytes=30)
        spec = world.spec("huge", memory_bytes=200, expected_bytes=0)
        world.loop.on_idle = None
        with pytest.raises(OutOfMemory):
            await world.engine.manager.load(spec)
        assert names(world) == ["a@1", "b@1", "c@1"]
        await asyncio.sleep(1)
        assert world.opened[-1].closed
        assert world.changes()[-2:] == ["huge@1 loading", "huge@1 failed"]


@pytest.mark.parametrize("bounds", [{"max_models": 2}, {"max_model_bytes": 100}])
@virtual
async def test_a_load_that_fails_changes_nothing(bounds: dict[str, Any]) -> None:
    async with World(LIMITS, **bounds) as world:
        for name in "ab":
            await world.serve(name, memory_bytes=50)
        bad = world.spec("bad", memory_bytes=50, load_s=5.0, fails_to_load=OSError())
        with pytest.raises(ModelLoadFailed):
            await world.engine.manager.load(bad)
        await asyncio.sleep(5)
        assert names(world) == ["a@1", "b@1"]
        for name in "ab":
            await world.infer(world.request(model=name))


@virtual
async def test_by_count_alone_a_failing_load_never_even_evicts() -> None:
    async with World(LIMITS, max_models=1) as world:
        model = await world.serve("a")
        load = asyncio.ensure_future(world.engine.manager.load(world.spec("bad", load_s=5.0, fails_to_load=OSError())))
        await asyncio.sleep(2)
        await world.infer(world.request(model="a"))
        await asyncio.wait([load])
        assert isinstance(load.exception(), ModelLoadFailed)
        assert not model.closed


@virtual
async def test_what_left_for_a_failing_load_and_was_replaced_meanwhile_is_not_brought_back() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        await world.serve("a", memory_bytes=60)
        bad = world.spec("bad", memory_bytes=60, load_s=5.0, fails_to_load=OSError())
        load = asyncio.ensure_future(world.engine.manager.load(bad))
        await asyncio.sleep(2)
        assert names(world) == []
        await world.engine.manager.swap(world.spec("a", "2", memory_bytes=10))
        await asyncio.wait([load])
        await asyncio.sleep(5)
        assert names(world) == ["a@2"]
        assert isinstance(load.exception(), ModelLoadFailed)


@virtual
async def test_a_model_in_use_is_not_unloaded() -> None:
    async with World(LIMITS) as world:
        model = await world.serve()
        busy = world.ask()
        await ticks(5)
        assert not await world.engine.manager.unload(model.ref)
        await busy
        assert await world.engine.manager.unload(model.ref)
        assert not await world.engine.manager.unload(model.ref)
        with pytest.raises(ModelNotReady):
            await world.infer(world.request())


@virtual
async def test_each_group_of_models_has_a_budget_of_its_own() -> None:
    budgets = {"llm": Budget(models=2, bytes=100)}
    async with World(LIMITS, max_models=1, max_model_bytes=50, budgets=budgets) as world:
        await world.serve("other", memory_bytes=50)
        for name in "ab":
            await world.serve(name, group="llm", memory_bytes=40)
        assert names(world) == ["a@1", "b@1", "other@1"]
        await world.serve("c", group="llm", memory_bytes=60)
        assert names(world) == ["b@1", "c@1", "other@1"]
        await world.serve("last", memory_bytes=20)
        assert names(world) == ["b@1", "c@1", "last@1"]


@virtual
async def test_pinned_models_of_one_group_leave_the_room_of_another_alone() -> None:
    async with World(LIMITS, max_models=1, budgets={"llm": Budget(models=2)}) as world:
        await world.serve("pinned", pinned=True)
        for name in "abc":
            await world.serve(name, group="llm")
        assert names(world) == ["b@1", "c@1", "pinned@1"]


PATIENT = {"llm": Budget(models=1, patience_s=10.0)}


@virtual
async def test_a_patient_budget_has_a_model_wait_until_another_is_no_longer_used() -> None:
    async with World(LIMITS, budgets=PATIENT) as world:
        await world.serve("a", group="llm", base_s=4.0)
        world.engine.repository.add(world.spec("b", group="llm", on_demand=True))
        busy, began = world.ask(model="a"), world.loop.time()
        await ticks(5)
        await world.infer(world.request(model="b"))
        assert busy.done() and world.loop.time() == began + 4 + 1 + 1
        assert names(world) == ["b@1"]


@virtual
async def test_patience_ends_and_who_waited_is_told_when_to_come_back() -> None:
    async with World(LIMITS, budgets=PATIENT) as world:
        await world.serve("a", group="llm", base_s=20.0)
        world.engine.repository.add(world.spec("b", group="llm", on_demand=True))
        busy, began = world.ask(model="a"), world.loop.time()
        await ticks(5)
        with pytest.raises(NoRoom):
            await world.infer(world.request(model="b"))
        assert world.loop.time() == began + 10 and names(world) == ["a@1"]
        await busy
        await world.infer(world.request(model="b"))


@virtual
async def test_those_who_wait_for_room_get_in_by_turns() -> None:
    async with World(LIMITS, budgets={"llm": Budget(models=1, patience_s=100.0)}) as world:
        order = []

        async def ask(name: str) -> None:
            await world.infer(world.request(model=name, deadline_s=200))
            order.append(name)

        await world.serve("a", group="llm", base_s=3.0)
        for name in "bcd":
            world.engine.repository.add(world.spec(name, group="llm", on_demand=True))
        asked = []
        for name in "abcd":
            asked.append(asyncio.ensure_future(ask(name)))
            await asyncio.sleep(0.1)
        await asyncio.gather(*asked)
        assert order == ["a", "b", "c", "d"]


@virtual
async def test_a_deadline_ends_the_wait_for_room_and_the_next_in_line_is_not_held_up() -> None:
    async with World(LIMITS, budgets=PATIENT) as world:
        await world.serve("a", group="llm", base_s=5.0)
        for name in "bc":
            world.engine.repository.add(world.spec(name, group="llm", on_demand=True))
        busy = world.ask(model="a")
        await ticks(5)
        hasty = world.ask(model="b", deadline_s=1)
        await asyncio.sleep(0.5)
        await world.infer(world.request(model="c"))
        assert isinstance(hasty.exception(), DeadlineExceeded) and busy.done()


async def keep_asking(world: World, name: str, answers: list[str], until: float) -> None:
    while world.loop.time() < until:
        await world.infer(world.request(model=name, deadline_s=100))
        answers.append(name)


@virtual
async def test_a_model_that_is_never_without_requests_gives_way_to_another_for_a_while() -> None:
    budget = Budget(models=2, patience_s=40.0)
    async with World(Limits(running=2, waiting=10), budgets={"llm": budget}) as world:
        for name in "abc":
            world.engine.repository.add(world.spec(name, group="llm", on_demand=True, base_s=0.7))
        answers: list[str] = []
        until = world.loop.time() + 400
        await asyncio.gather(*(keep_asking(world, name, answers, until) for name in "abcabcabc"))
        assert {name: answers.count(name) > 100 for name in "abc"} == {"a": True, "b": True, "c": True}
        assert world.changes().count("c@1 evicted") < 400 / 10, "they take turns, and not at every request"


@virtual
async def test_what_is_under_way_is_never_cut_off_for_another_and_new_requests_stand_back_for_a_while_only() -> None:
    async with World(LIMITS, budgets={"llm": Budget(models=1, patience_s=8.0)}) as world:
        await world.serve("a", group="llm", on_demand=True, base_s=100.0)
        world.engine.repository.add(world.spec("b", group="llm", on_demand=True))
        long = world.ask(model="a", deadline_s=300)
        await ticks(5)
        began = world.loop.time()
        other = world.ask(model="b", deadline_s=300)
        await asyncio.sleep(3)
        async with world.stream(world.request(model="a", deadline_s=300)):
            assert world.loop.time() == began + 4, "the second quarter is over"
        await asyncio.wait([other])
        assert isinstance(other.exception(), NoRoom) and world.loop.time() == began + 8
        await long


@virtual
async def test_a_pinned_model_gives_way_to_nobody() -> None:
    async with World(LIMITS, budgets=PATIENT) as world:
        await world.serve("a", group="llm", on_demand=True, pinned=True)
        world.engine.repository.add(world.spec("b", group="llm", on_demand=True))
        answers: list[str] = []
        busy = asyncio.ensure_future(keep_asking(world, "a", answers, world.loop.time() + 20))
        with pytest.raises(NoRoom):
            await world.infer(world.request(model="b"))
        await busy
        assert len(answers) == 20


@virtual
async def test_closing_ends_the_wait_for_room() -> None:
    async with World(LIMITS, budgets=PATIENT) as world:
        await world.serve("a", group="llm", base_s=5.0)
        world.engine.repository.add(world.spec("b", group="llm", on_demand=True))
        busy, waiting = world.ask(model="a"), world.ask(model="b")
        await asyncio.sleep(1)
        began = world.loop.time()
        await asyncio.gather(world.engine.close(), return_exceptions=True)
        await asyncio.gather(waiting, busy, return_exceptions=True)
        assert isinstance(waiting.exception(), NoRoom | Draining) and world.loop.time() <= began + 5


@pytest.mark.parametrize("on_demand", [True, False])
@virtual
async def test_a_model_that_has_ended_by_itself_is_loaded_again_once_by_those_who_ask_next(on_demand: bool) -> None:
    async with World(LIMITS) as world:
        script = Script(LIMITS)
        first = await world.serve(script=script, on_demand=on_demand)
        first.died = True
        assert world.engine.manager.get(first.ref) is None
        asked = [world.ask() for _ in range(5)]
        await asyncio.wait(asked)
        answers = [outcome(task) for task in asked]
        assert not isinstance(answers[0], Exception) and script.loads == 2
        assert on_demand == (not any(isinstance(answer, ModelNotReady) for answer in answers))
        await world.infer(world.request())
        assert script.loads == 2 and first.closed


@virtual
async def test_a_model_that_has_ended_while_others_still_use_it_makes_nobody_wait() -> None:
    async with World(LIMITS, max_models=1) as world:
        first = await world.serve(on_demand=True, base_s=10.0)
        async with world.stream(world.request()):
            first.died = True
            began = world.loop.time()
            await world.infer(world.request())
            assert world.loop.time() == began + 1 + 10


@virtual
async def test_what_a_load_says_of_memory_is_said_to_who_asked() -> None:
    async with World(LIMITS) as world:
        world.engine.repository.add(world.spec(fails_to_load=OutOfMemory("too large"), on_demand=True))
        with pytest.raises(OutOfMemory):
            await world.infer(world.request())


# Swapping


@virtual
async def test_a_swap_moves_to_a_new_version_that_is_warm_and_returns_after_the_last_old_answer() -> None:
    async with World(LIMITS) as world:
        old = await world.serve(base_s=10.0)
        running = world.ask(1)
        await ticks(5)
        began = world.loop.time()
        swap = asyncio.ensure_future(world.engine.manager.swap(world.spec("m", "2", load_s=2.0, warm_s=1.0)))
        await asyncio.sleep(2.5)
        before = world.ask(2)
        await asyncio.sleep(1)
        after = world.ask(3)
        assert (await after).ref.version == "2", "the new one answers while the old one still does"
        assert not swap.done() and not running.done()
        await swap
        assert [task.result().ref.version for task in (running, before)] == ["1", "1"]
        assert world.loop.time() == began + 20
        assert names(world) == ["m@2"]
        await asyncio.sleep(1)
        assert old.closed
        assert world.changes()[-3:] == ["m@2 loaded", "m@2 swapped", "m@1 unloaded"]


@virtual
async def test_a_request_in_the_line_of_a_swap_stays_with_the_version_that_it_resolved() -> None:
    async with World(Limits(running=1, waiting=10)) as world:
        await world.serve()
        tasks = [world.ask(i) for i in range(4)]
        await ticks(5)
        await world.engine.manager.swap(world.spec("m", "2", load_s=0.0))
        assert [task.result().ref.version for task in tasks] == ["1"] * 4


@pytest.mark.parametrize("how", ["fails", "too large"])
@virtual
async def test_a_swap_that_fails_keeps_the_old_version(how: str) -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        old = await world.serve(memory_bytes=40)
        new = world.spec(
            "m",
            "2",
            memory_bytes=40 if how == "fails" else 400,
            fails_to_load=OSError() if how == "fails" else None,
        )
        with pytest.raises((ModelLoadFailed, OutOfMemory)):
            await world.engine.manager.swap(new)
        assert (await world.infer(world.request())).ref == old.ref
        with pytest.raises(ModelNotFound):
            await world.infer(world.request(model="m@2"))
        assert "m@2 swapped" not in world.changes()


@virtual
async def test_twenty_swaps_to_the_same_version_load_it_once() -> None:
    async with World(LIMITS) as world:
        await world.serve()
        script = Script(LIMITS, load_s=3.0)
        spec = world.spec("m", "2", script=script)
        await asyncio.gather(*(world.engine.manager.swap(spec) for _ in range(20)))
        assert script.loads == 1 and names(world) == ["m@2"]


@virtual
async def test_swaps_to_different_versions_come_one_after_another_and_the_last_stays() -> None:
    async with World(LIMITS) as world:
        await world.serve()
        await asyncio.gather(*(world.engine.manager.swap(world.spec("m", str(v))) for v in range(2, 9)))
        assert names(world) == ["m@8"]
        assert (await world.infer(world.request())).ref.version == "8"


@virtual
async def test_a_swap_of_one_model_does_not_wait_for_that_of_another() -> None:
    async with World(LIMITS) as world:
        await world.serve("a", base_s=100.0)
        await world.serve("b")
        busy = world.ask(model="a", deadline_s=200)
        await ticks(5)
        slow = asyncio.ensure_future(world.engine.manager.swap(world.spec("a", "2")))
        await asyncio.sleep(5)
        began = world.loop.time()
        await world.engine.manager.swap(world.spec("b", "2"))
        assert world.loop.time() == began + 1
        await asyncio.gather(slow, busy)


@virtual
async def test_a_version_that_keeps_another_alias_stays() -> None:
    async with World(LIMITS) as world:
        spec = world.spec()
        world.engine.repository.add(spec, "latest", "stable")
        await world.engine.manager.load(spec)
        await world.engine.manager.swap(world.spec("m", "2"))
        assert names(world) == ["m@1", "m@2"]
        versions = [(await world.infer(world.request(model=m))).ref.version for m in ("m", "m@stable", "m@1", "m@2")]
        assert versions == ["2", "1", "1", "2"]
        await world.engine.manager.swap(world.spec("m", "2"), "stable")
        assert names(world) == ["m@2"]


@virtual
async def test_the_same_version_of_other_bytes_takes_its_place() -> None:
    async with World(LIMITS) as world:
        old = await world.serve(base_s=5.0)
        busy = world.ask()
        await ticks(5)
        new = replace(world.spec("m", "1"), ref=ModelRef("m", "1", "other bytes"))
        await world.engine.manager.swap(new)
        assert busy.done() and world.engine.manager.get(old.ref) is None
        assert (await world.infer(world.request())).ref.digest == "other bytes"


@virtual
async def test_a_swap_whose_caller_left_still_ends_and_the_next_one_still_waits_for_the_old_version() -> None:
    async with World(LIMITS) as world:
        old = await world.serve(base_s=10.0)
        busy = world.ask()
        await ticks(5)
        spec = world.spec("m", "2", load_s=0.0)
        left = asyncio.ensure_future(world.engine.manager.swap(spec))
        await asyncio.sleep(1)
        left.cancel()
        await asyncio.wait([left])
        await world.engine.manager.swap(spec)
        assert busy.done(), "nothing is answered by the old version after a swap has returned"
        assert world.engine.manager.get(old.ref) is None


@virtual
async def test_a_swap_whose_caller_left_unloads_every_version_it_replaced() -> None:
    async with World(LIMITS) as world:
        for version in "12":
            spec = world.spec("m", version, base_s=10.0)
            world.engine.repository.add(spec, f"alias {version}", "latest")
            await world.engine.manager.load(spec)
        busy = [world.ask(model=f"m@{version}") for version in "12"]
        await ticks(5)
        left = asyncio.ensure_future(
            world.engine.manager.swap(world.spec("m", "3", load_s=0.0), "alias 1", "alias 2", "latest")
        )
        await asyncio.sleep(1)
        left.cancel()
        await asyncio.wait(busy)
        assert names(world) == ["m@3"]


@virtual
async def test_a_swap_whose_caller_left_during_the_load_leaves_nothing_in_memory() -> None:
    async with World(LIMITS) as world:
        await world.serve()
        left = asyncio.ensure_future(world.engine.manager.swap(world.spec("m", "2", load_s=5.0)))
        await asyncio.sleep(1)
        left.cancel()
        await asyncio.sleep(10)
        assert names(world) == ["m@1"]
        assert world.opened[-1].closed


@virtual
async def test_a_version_that_is_swapped_back_before_it_was_unloaded_stays() -> None:
    async with World(LIMITS) as world:
        old = await world.serve(base_s=10.0)
        busy = world.ask()
        await ticks(5)
        left = asyncio.ensure_future(world.engine.manager.swap(world.spec("m", "2", load_s=0.0)))
        await asyncio.sleep(1)
        left.cancel()
        await asyncio.wait([left])
        await world.engine.manager.swap(world.spec("m", "1"))
        await busy
        assert (await world.infer(world.request())).ref == old.ref
        assert names(world) == ["m@1"] and not old.closed


@virtual
async def test_a_version_swapped_out_while_it_is_still_loading_does_not_stay() -> None:
    async with World(LIMITS) as world:
        old = world.spec(load_s=20.0)
        world.engine.repository.add(old)
        load = asyncio.ensure_future(world.engine.manager.load(old))
        await asyncio.sleep(1)
        await world.engine.manager.swap(world.spec("m", "2", load_s=1.0))
        await load
        assert names(world) == ["m@2"]


@pytest.mark.parametrize("bounds", [{"max_models": 1}, {"max_model_bytes": 100}, {"max_model_bytes": 130}])
@virtual
async def test_a_swap_never_evicts_what_it_replaces_before_its_time(bounds: dict[str, Any]) -> None:
    """Otherwise every reload on a crowded machine fails requests, and one reload in use is always refused."""
    async with World(LIMITS, **bounds) as world:
        await world.serve(base_s=0.05, memory_bytes=60)
        swaps = 0
        stop = asyncio.Event()

        async def ask() -> None:
            while not stop.is_set():
                await world.infer(world.request())
                await asyncio.sleep(0.07)

        asker = asyncio.ensure_future(ask())
        for version in range(2, 30):
            try:
                await world.engine.manager.swap(world.spec("m", str(version), load_s=0.31, memory_bytes=60))
                swaps += 1
            except NoRoom:
                assert bounds == {"max_model_bytes": 100}, "there is room for both"
            for turns in range(6):
                await ticks(turns)
                await world.infer(world.request())
        stop.set()
        await asker
        assert swaps == (0 if bounds == {"max_model_bytes": 100} else 28)


@virtual
async def test_a_swap_for_which_there_is_no_room_beside_the_old_version_is_refused_and_the_old_one_serves() -> None:
    async with World(LIMITS, max_model_bytes=100) as world:
        old = await world.serve(memory_bytes=60)
        with pytest.raises(NoRoom):
            await world.engine.manager.swap(world.spec("m", "2", memory_bytes=60))
        assert (await world.infer(world.request())).ref == old.ref and not old.closed


@virtual
async def test_a_version_that_keeps_another_alias_counts_while_it_is_swapped_out_of_one() -> None:
    async with World(LIMITS, max_models=1) as world:
        spec = world.spec(on_demand=True)
        world.engine.repository.add(spec, "latest", "stable")
        await world.engine.manager.load(spec)
        await world.engine.manager.swap(world.spec("m", "2"))
        assert names(world) == ["m@2"]
        await asyncio.sleep(1)
        assert (await world.infer(world.request(model="m@stable"))).ref.version == "1"


@virtual
async def test_a_model_that_is_being_replaced_makes_no_room_for_others() -> None:
    async with World(LIMITS, max_models=1) as world:
        await world.serve("a")
        bad = world.spec("a", "2", load_s=5.0, fails_to_load=OSError())
        swap = asyncio.ensure_future(world.engine.manager.swap(bad))
        await asyncio.sleep(1)
        world.engine.repository.add(world.spec("b", on_demand=True))
        with pytest.raises(NoRoom):
            await world.infer(world.request(model="b"))
        await asyncio.wait([swap])
        assert isinstance(swap.exception(), ModelLoadFailed)
        assert names(world) == ["a@1"]


@virtual
async def test_two_hundred_reloads_under_load_fail_nobody() -> None:
    """R17 in virtual time: every answer is by exactly the version that its label names."""
    async with World(LIMITS, max_model_bytes=100) as world:
        await world.serve(base_s=0.05, memory_bytes=40)
        reloads = 0

        async def ask() -> None:
            while reloads < 200:
                oldest = reloads
                result = await world.infer(world.request())
                assert result.outputs[0][1] == result.ref.version
                assert int(result.ref.version) >= oldest + 1, "an answer by a version that was swapped out before"
                await asyncio.sleep(0.01)

        askers = [asyncio.ensure_future(ask()) for _ in range(5)]
        for version in range(2, 202):
            await world.engine.manager.swap(world.spec("m", str(version), load_s=0.1, base_s=0.05, memory_bytes=40))
            reloads += 1
        await asyncio.gather(*askers)
        assert world.most_bytes <= 80


# Closing


@virtual
async def test_closing_the_engine_closes_every_model_once() -> None:
    async with World(LIMITS) as world:
        models = await three(world, close_s=3.0)
        await world.engine.close()
        assert all(model.closed for model in models)
        assert world.engine.lifecycle.state == "stopped"


@virtual
async def test_a_load_under_way_when_the_engine_closes_leaves_no_model_open() -> None:
    async with World(LIMITS) as world:
        spec = world.spec(load_s=5.0)
        load = asyncio.ensure_future(world.engine.manager.load(spec))
        await asyncio.sleep(1)
        await world.engine.close()
        assert isinstance(outcome(load), Draining)
        assert world.opened[0].closed
        with pytest.raises(Draining):
            await world.engine.manager.load(spec)


@virtual
async def test_closing_under_requests_hangs_nobody() -> None:
    async with World(Limits(running=8, waiting=8, max_batch_size=1)) as world:
        await world.serve(base_s=1.0)
        tasks = [world.ask(deadline_s=20) for _ in range(6)]
        await asyncio.sleep(0.5)
        await world.engine.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert world.loop.time() <= 1021.5
