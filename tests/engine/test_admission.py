"""Slots, the bounded line, deadlines, and what those who are refused are told."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.engine.fakes import World, outcome, ticks
from tests.engine.virtual import virtual

from maru.engine.errors import DeadlineExceeded, DeadlineUnreachable, EngineError, QueueFull, Refused, TooManyItems
from maru.engine.events import QueueChanged
from maru.engine.types import Limits, Result

SERIAL = Limits(running=2, waiting=10, max_batch_size=1, workers=2)
"""Document 000's limits, on a model that computes two items at once and never a batch."""


@virtual
async def test_two_run_ten_wait_and_the_thirteenth_is_refused_at_once() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        began = world.loop.time()
        tasks = [world.ask() for _ in range(13)]
        await ticks(6)
        status = world.engine.status("m")
        assert (status.running, status.waiting) == (2, 10)
        assert [isinstance(outcome(task), QueueFull) for task in tasks if task.done()] == [True]
        assert tasks[-1].done() and world.loop.time() == began
        await asyncio.gather(*tasks[:-1])
        assert world.loop.time() == began + 6


@virtual
async def test_a_waiter_leaves_at_its_deadline_and_frees_its_place() -> None:
    async with World(SERIAL) as world:
        await world.serve(base_s=45.0)
        began = world.loop.time()
        tasks = [world.ask(deadline_s=60) for _ in range(2)] + [world.ask(deadline_s=30) for _ in range(10)]
        await asyncio.wait(tasks[2:])
        assert world.loop.time() == began + 30
        for task in tasks[2:]:
            error = task.exception()
            assert isinstance(error, DeadlineExceeded) and error.stage == "waiting"
        assert world.line().waiting == 0
        later = [world.ask(deadline_s=1000) for _ in range(10)]
        await asyncio.gather(*tasks[:2], *later)


@virtual
async def test_a_deadline_while_computing_is_told_as_such() -> None:
    async with World(SERIAL) as world:
        await world.serve(base_s=45.0)
        task = world.ask(deadline_s=30)
        await asyncio.wait([task])
        error = task.exception()
        assert isinstance(error, DeadlineExceeded) and error.stage == "computing"
        assert world.line().running == 0


@virtual
async def test_a_deadline_that_has_passed_already_ends_the_request_at_once() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        began = world.loop.time()
        for deadline_s in (0.0, -5.0):
            with pytest.raises(DeadlineExceeded):
                await world.infer(world.request(deadline_s=deadline_s))
        assert world.loop.time() == began


@virtual
async def test_one_callers_requests_are_served_in_the_order_they_came() -> None:
    rng = random.Random(1)
    async with World(Limits(running=3, waiting=200, max_batch_size=2)) as world:
        model = await world.serve()
        tasks = [world.ask(i, costs=[rng.uniform(0.1, 50)], deadline_s=500) for i in range(60)]
        await asyncio.gather(*tasks)
        assert [item for batch in model.batches for item in batch] == list(range(60))


@virtual
async def test_a_list_is_taken_or_refused_exactly_as_its_items_would_be() -> None:
    for busy in range(13):
        for count in range(1, 13):
            async with World(SERIAL) as world:
                await world.serve()
                others = [world.ask(tenant="other") for _ in range(busy)]
                await ticks(6)
                room = busy + count <= 12
                began = world.loop.time()
                try:
                    result = await world.infer(world.request(*range(count), tenant="other"))
                except QueueFull:
                    assert not room
                else:
                    assert room and [output[3] for output in result.outputs] == list(range(count))
                    assert world.loop.time() - began == (busy + count + 1) // 2, "as long as singles take"
                await asyncio.wait(others) if others else None


@virtual
async def test_a_list_that_could_never_be_taken_is_not_told_to_come_back() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        with pytest.raises(TooManyItems, match="13 items, and 12"):
            await world.infer(world.request(*range(13)))


@virtual
async def test_a_list_larger_than_the_slots_runs_through_them() -> None:
    async with World(Limits(running=4, waiting=60, max_batch_size=4)) as world:
        model = await world.serve()
        result = await world.infer(world.request(*range(50)))
        assert [output[3] for output in result.outputs] == list(range(50))
        assert max(len(batch) for batch in model.batches) == 4
        assert max(event.running for event in world.seen(QueueChanged)) == 4


@virtual
async def test_a_caller_that_obeys_retry_after_is_admitted() -> None:
    """Whatever the burst that filled the line, and with up to a line's length of others refused beside it."""
    rng = random.Random(3)
    told = kept = 0
    for _ in range(60):
        limits = Limits(running=rng.randint(1, 6), waiting=rng.randint(0, 12), max_batch_size=1, workers=6)
        async with World(limits) as world:
            await world.serve(base_s=rng.choice([0.05, 0.7, 5.0]))
            await asyncio.gather(*(world.ask(deadline_s=900) for _ in range(limits.running + limits.waiting)))
            line = limits.running + limits.waiting

            async def obey(world: World = world) -> bool | None:
                try:
                    await world.infer(world.request(deadline_s=900))
                except Refused as refused:
                    await asyncio.sleep(refused.retry_after_s)
                else:
                    return None
                try:
                    await world.infer(world.request(deadline_s=900))
                except Refused:
                    return False
                return True

            ends = await asyncio.gather(*(obey() for _ in range(line + rng.randint(1, line))))
            told += sum(end is not None for end in ends)
            kept += sum(end is True for end in ends)
    assert told > 200
    assert kept >= 0.95 * told, f"{kept} of {told}"


@virtual
async def test_those_refused_together_are_not_told_to_come_back_together() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        await asyncio.gather(*(world.ask() for _ in range(4)))
        tasks = [world.ask() for _ in range(20)]
        await ticks(6)
        errors = [task.exception() for task in tasks if task.done()]
        times = [error.retry_after_s for error in errors if isinstance(error, QueueFull)]
        assert times == pytest.approx([1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])
        for task in tasks:
            await asyncio.wait([task])


@virtual
async def test_nobody_is_told_to_wait_longer_than_the_whole_line_takes() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        await asyncio.gather(*(world.ask() for _ in range(4)))
        tasks = [world.ask() for _ in range(1000)]
        await ticks(6)
        errors = [task.exception() for task in tasks if task.done()]
        times = [error.retry_after_s for error in errors if isinstance(error, QueueFull)]
        assert len(times) == 988 and max(times) <= 6.5 + 1e-9
        await asyncio.wait(tasks)


@virtual
async def test_a_deadline_that_the_measured_rate_cannot_meet_is_refused_at_once() -> None:
    async with World(SERIAL) as world:
        model = await world.serve()
        await asyncio.gather(*(world.ask() for _ in range(8)))
        busy = [world.ask() for _ in range(8)]
        await ticks(6)
        began, batches = world.loop.time(), len(model.batches)
        with pytest.raises(DeadlineUnreachable) as refused:
            await world.infer(world.request(deadline_s=2.0))
        assert world.loop.time() == began and len(model.batches) == batches
        assert refused.value.estimated_wait_s == pytest.approx(4.5, rel=0.3)
        await asyncio.sleep(refused.value.retry_after_s)
        await world.infer(world.request(deadline_s=2.0 + 1.0))
        await asyncio.gather(*busy)


@virtual
async def test_no_deadline_is_refused_before_anything_was_measured() -> None:
    async with World(SERIAL) as world:
        await world.serve(base_s=10.0)
        tasks = [world.ask(deadline_s=0.5) for _ in range(12)]
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), DeadlineExceeded) for task in tasks)
        assert world.engine.status("m").estimated_wait_s is None


@virtual
async def test_an_idle_model_is_always_tried_however_slow_it_was() -> None:
    async with World(SERIAL) as world:
        await world.serve(base_s=20.0)
        await asyncio.gather(*(world.ask(deadline_s=1000) for _ in range(12)))
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                await world.infer(world.request(deadline_s=1.0))


@virtual
async def test_a_model_that_was_slow_for_a_while_is_soon_believed_to_be_fast_again() -> None:
    """A rate measured under load must not keep away the load under which it would be measured anew."""
    async with World(Limits(running=32, waiting=64, max_batch_size=1, workers=32)) as world:
        model = await world.serve(base_s=60.0)
        await asyncio.gather(*(world.ask(deadline_s=1000) for _ in range(96)))
        model.script.base_s = 0.1

        async def caller() -> int:
            done = 0
            while world.loop.time() < until:
                try:
                    await world.infer(world.request(deadline_s=10.0))
                    done += 1
                except Refused:
                    await asyncio.sleep(0.1)
            return done

        until = world.loop.time() + 60
        done = sum(await asyncio.gather(*(caller() for _ in range(48))))
        assert done > 0.8 * 60 * 320, done


@virtual
async def test_the_estimated_wait_is_the_wait() -> None:
    """For slow models too: what a long computation gives must not have faded when it is counted."""
    for base_s in (0.02, 1.0, 8.0, 30.0):
        async with World(SERIAL) as world:
            await world.serve(base_s=base_s)
            for _ in range(3):
                await asyncio.gather(*(world.ask(deadline_s=9000) for _ in range(12)))
            tasks = [world.ask(deadline_s=9000) for _ in range(10)]
            await asyncio.sleep(base_s * 1.5)
            estimated = world.engine.status("m").estimated_wait_s
            began = world.loop.time()
            await world.infer(world.request(deadline_s=9000))
            assert estimated is not None
            took = world.loop.time() - began
            assert 0.75 * took - base_s <= estimated <= 1.25 * took + base_s, (base_s, estimated, took)
            await asyncio.gather(*tasks)


@virtual
async def test_the_time_that_streams_hold_their_slots_is_measured_too() -> None:
    async with World(SERIAL) as world:
        await world.serve()

        async def read() -> None:
            async with world.stream(world.request()) as stream:
                async for _ in stream.parts:
                    pass

        await asyncio.gather(*(read() for _ in range(12)))
        holders = [asyncio.ensure_future(read()) for _ in range(12)]
        await ticks(6)
        assert world.engine.status("m").estimated_wait_s == pytest.approx(19.5, rel=0.2)
        with pytest.raises(QueueFull) as refused:
            await world.infer(world.request())
        assert refused.value.retry_after_s == pytest.approx(4.5, rel=0.2)
        await asyncio.gather(*holders)


async def _offer(
    world: World,
    count: int,
    rate: float,
    rng: random.Random,
    deadline_s: float,
    tenant: str = "",
    steady: bool = False,
) -> list[Result | EngineError]:
    """`count` requests at random times, `rate` a second, whatever becomes of them."""
    tasks = []
    for _ in range(count):
        tasks.append(world.ask(deadline_s=deadline_s, tenant=tenant))
        await asyncio.sleep(rng.uniform(0.5, 1.5) / rate if steady else rng.expovariate(rate))
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, Result | EngineError) for end in ends), ends
    return ends  # type: ignore[return-value]


@pytest.mark.parametrize(("times", "goodput"), [(1, 0.8), (3, 0.95), (10, 0.95), (25, 0.9)])
@pytest.mark.parametrize("deadline_s", [30.0, 0.15], ids=["long deadlines", "deadlines shorter than the line"])
@virtual
async def test_under_overload_the_model_gives_what_it_can(times: int, goodput: float, deadline_s: float) -> None:
    """R1, without the wire: goodput, the wait of those admitted, and a Retry-After for all others."""
    seconds, capacity = 10.0, 40.0
    async with World(SERIAL) as world:
        await world.serve(base_s=0.05)
        began = world.loop.time()
        rate = times * capacity
        ends = await _offer(world, int(rate * seconds), rate, random.Random(times), deadline_s)
        lasted = world.loop.time() - began
        served = [end for end in ends if isinstance(end, Result)]
        assert len(served) >= goodput * capacity * lasted, len(served) / (capacity * lasted)
        waits = sorted(result.timings.total_s for result in served)
        assert waits[int(0.99 * len(waits))] <= 1.2 * (10 / 2 + 1) * 0.05
        refused = [end for end in ends if isinstance(end, Refused)]
        assert all(0 < error.retry_after_s <= 1.0 for error in refused)
        assert len(served) + len(refused) >= 0.99 * len(ends), "a refusal is told at once and not at the deadline"


@virtual
async def test_long_run_shares_follow_the_weights() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    rng = random.Random(5)
    async with World(Limits(running=4, waiting=400, max_batch_size=1, workers=4)) as world:
        await world.serve(base_s=0.1)
        served = dict.fromkeys(weights, 0.0)
        until = world.loop.time() + 120

        async def caller(tenant: str) -> None:
            while world.loop.time() < until:
                cost = rng.choice([1.0, 1.0, 4.0])
                weight = weights[tenant]
                await world.infer(world.request(tenant=tenant, weight=weight, costs=[cost], deadline_s=900))
                served[tenant] += cost

        await asyncio.gather(*(caller(tenant) for tenant in weights for _ in range(40)))
        total = sum(served.values())
        for tenant, weight in weights.items():
            assert served[tenant] / total == pytest.approx(weight / 8, rel=0.1), served


@virtual
async def test_a_list_does_not_overtake_and_is_not_overtaken_for_being_a_list() -> None:
    """One caller sends lists of 20, the other single items: item for item they get the same."""
    async with World(Limits(running=4, waiting=400, max_batch_size=1, workers=4)) as world:
        await world.serve(base_s=0.1)
        served = {"lists": 0, "singles": 0}
        until = world.loop.time() + 100

        async def caller(tenant: str, count: int) -> None:
            while world.loop.time() < until:
                await world.infer(world.request(*range(count), tenant=tenant, deadline_s=900))
                served[tenant] += count

        await asyncio.gather(*(caller("lists", 20) for _ in range(4)), *(caller("singles", 1) for _ in range(80)))
        assert served["lists"] == pytest.approx(served["singles"], rel=0.1), served


@virtual
async def test_one_greedy_caller_takes_nothing_from_nine_modest_ones() -> None:
    """R30: one at ten times the capacity, nine at a tenth of it each, on document 000's line."""
    capacity, seconds = 40.0, 60.0
    async with World(SERIAL) as world:
        await world.serve(base_s=0.05)
        rates = {f"modest {i}": 0.1 * capacity for i in range(9)} | {"greedy": 10 * capacity}
        *modest, greedy = await asyncio.gather(
            *(
                _offer(world, int(r * seconds), r, random.Random(who), 30.0, who, steady=True)
                for who, r in rates.items()
            )
        )
        for ends in modest:
            served = sum(isinstance(end, Result) for end in ends)
            assert served >= 0.95 * len(ends), f"{served} of {len(ends)}"
        assert sum(isinstance(end, Result) for end in greedy) >= 0.09 * capacity * seconds, "nor is greed punished"


@virtual
async def test_in_a_full_line_the_newest_of_who_has_most_makes_room() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        greedy = [world.ask(tenant="greedy") for _ in range(12)]
        await ticks(6)
        modest = world.ask(tenant="modest")
        await ticks(6)
        assert isinstance(greedy[-1].exception(), QueueFull)
        assert not any(task.done() for task in greedy[:-1]) and not modest.done()
        await modest
        await asyncio.gather(*greedy[:-1])


@virtual
async def test_a_refusal_does_not_look_at_everybody_who_waits() -> None:
    """Thousands may wait, each a caller of its own. Refusing one more must cost what refusing the first did."""

    class Unread(dict[Any, Any]):
        def values(self) -> Any:
            raise AssertionError("all callers were looked at")

        items = values

    async with World(Limits(running=8, waiting=500)) as world:
        await world.serve(base_s=0.01)
        await asyncio.gather(*(world.ask() for _ in range(20)))
        tasks = [world.ask(tenant=f"tenant {i}") for i in range(508)]
        await ticks(6)
        line = world.line()
        line._callers = Unread(line._callers)
        refused = [world.ask(tenant=f"another {i}") for i in range(20)]
        await ticks(6)
        assert [type(task.exception()) for task in refused] == [QueueFull] * 20
        line._callers = dict(dict.items(line._callers))
        await asyncio.gather(*tasks)


@virtual
async def test_new_limits_hold_once_the_line_is_empty() -> None:
    async with World(SERIAL) as world:
        await world.serve()
        tasks = [world.ask() for _ in range(6)]
        await ticks(6)
        await world.engine.manager.swap(world.spec("m", "2", limits=Limits(running=1, waiting=0), load_s=0.0))
        assert all(task.done() for task in tasks)
        first = world.ask()
        await ticks(6)
        with pytest.raises(QueueFull):
            await world.infer(world.request())
        await first


@virtual
async def test_waiters_that_leave_leave_no_trace() -> None:
    async with World(SERIAL) as world:
        model = await world.serve(base_s=100.0)
        stay = [world.ask(deadline_s=1000, tenant="stays") for _ in range(3)]
        await ticks(6)
        for i in range(3000):
            waiter = world.ask(tenant=f"tenant {i % 7}")
            await ticks(1 + i % 4)
            waiter.cancel()
        await ticks(6)
        line = world.line()
        assert (line.running, line.waiting) == (2, 1)
        assert list(line._callers) == ["stays"] and len(line._turns) < 100 and len(line._finishes) < 100
        await asyncio.gather(*stay)
        await world.settle()
        assert len(model.batches) == 3, "what was left behind is never computed"


@virtual
async def test_a_slot_granted_in_the_instant_its_caller_is_cancelled_is_given_on() -> None:
    for turns in range(8):
        async with World(Limits(running=1, waiting=10)) as world:
            await world.serve()
            tasks = [world.ask() for _ in range(3)]
            await asyncio.sleep(1.0)
            await ticks(turns)
            tasks[1].cancel()
            await asyncio.wait(tasks)
            assert outcome(tasks[2]).outputs
