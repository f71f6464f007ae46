"""What is cut off ends with TimeoutError, and no other cancellation is taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from maru.engine.cutoff import Cutoff

LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a test in a task, which must have no cancellation outstanding afterwards."""

    def runs(test: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await asyncio.wait_for(test(), 5)
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None and not task.cancelling()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(whole())

    return runs


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.01])
def test_work_ends_when_its_time_is_up(run, seconds: float) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError), Cutoff() as cutoff:
            cutoff.after(seconds)
            await asyncio.sleep(60)
        assert cutoff.reached

    run(test)


def test_work_that_is_done_in_time_is_left_alone(run) -> None:
    async def test() -> None:
        with Cutoff() as cutoff:
            cutoff.after(0.01)
        await asyncio.sleep(0.03)
        assert not cutoff.reached
        cutoff.after(0.0)
        await asyncio.sleep(0.01)

    run(test)


def test_a_later_time_takes_the_place_of_the_earlier(run) -> None:
    async def test() -> None:
        with Cutoff() as cutoff:
            cutoff.after(0.01)
            cutoff.after(60.0)
            await asyncio.sleep(0.03)
        assert not cutoff.reached

    run(test)


def test_a_cancellation_from_elsewhere_passes_through(run) -> None:
    async def work() -> None:
        with Cutoff() as cutoff:
            cutoff.after(60.0)
            await asyncio.sleep(60)

    async def test() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(test)


def test_where_both_come_it_is_the_other_one(run) -> None:
    async def work() -> None:
        with Cutoff() as cutoff:
            try:
                cutoff.after(0.0)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None and cutoff.reached
                task.cancel()
                await asyncio.sleep(60)

    async def test() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())

    run(test)


def test_an_error_on_the_way_out_is_what_is_raised(run) -> None:
    async def test() -> None:
        with pytest.raises(KeyError), Cutoff() as cutoff:
            cutoff.after(0.0)
            try:
                await asyncio.sleep(60)
            finally:
                raise KeyError
        assert cutoff.reached

    run(test)


def test_the_inner_of_two_ends_alone(run) -> None:
    async def test() -> None:
        with Cutoff() as outer:
            outer.after(60.0)
            with pytest.raises(TimeoutError), Cutoff() as inner:
                inner.after(0.0)
                await asyncio.sleep(60)
            await asyncio.sleep(0.01)
        assert inner.reached and not outer.reached

    run(test)


def test_the_outer_of_two_ends_both(run) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError), Cutoff() as outer:
            outer.after(0.01)
            with Cutoff() as inner:
                inner.after(60.0)
                await asyncio.sleep(60)
        assert outer.reached and not inner.reached

    run(test)
