"""Each stage is reported once, and what is reported is what happened."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.engine.fakes import Item, World, outcome, ticks
from tests.engine.virtual import virtual

from maru.engine.errors import (
    DeadlineExceeded,
    Draining,
    InputError,
    ModelFailed,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    OutOfMemory,
    QueueFull,
)
from maru.engine.events import (
    BatchComputed,
    CacheLookedUp,
    Event,
    Events,
    LifecycleChanged,
    QueueChanged,
    RequestFinished,
)
from maru.engine.types import Limits


@virtual
async def test_one_answer_is_reported_from_the_line_to_the_end() -> None:
    async with World() as world:
        await world.serve(cached=True)
        world.events.clear()
        await world.infer(world.request(1, cached=True))
        kinds = [type(event) for event in world.events]
        assert kinds == [CacheLookedUp, QueueChanged, QueueChanged, BatchComputed, RequestFinished]


@pytest.mark.parametrize(
    ("end", "outcome_", "error"),
    [
        ("answer", "ok", type(None)),
        ("queue full", "refused", QueueFull),
        ("not ready", "refused", ModelNotReady),
        ("draining", "refused", Draining),
        ("late", "deadline", DeadlineExceeded),
        ("cancelled", "cancelled", asyncio.CancelledError),
        ("unknown", "input", ModelNotFound),
        ("invalid", "input", InputError),
        ("raises", "failed", ModelFailed),
        ("memory", "failed", OutOfMemory),
        ("no load", "failed", ModelLoadFailed),
    ],
)
@virtual
async def test_every_request_ends_in_exactly_one_report(end: str, outcome_: str, error: type[Any]) -> None:
    async with World(Limits(running=1, waiting=0)) as world:
        await world.serve()
        model, fate = "m", "ok"
        match end:
            case "queue full":
                world.ask(deadline_s=5)
                await ticks(3)
            case "not ready":
                world.engine.repository.add(world.spec("cold"))
                model = "cold"
            case "draining":
                await world.engine.drain(1)
            case "unknown":
                model = "nobody"
            case "no load":
                world.engine.repository.add(world.spec("bad", fails_to_load=OSError(), on_demand=True))
                model = "bad"
            case "invalid" | "raises" | "memory":
                fate = end
        request = world.request(Item(5, fate), model=model, deadline_s=0.5 if end == "late" else 30)
        task = asyncio.ensure_future(world.infer(request))
        await asyncio.sleep(0.2)
        if end == "cancelled":
            task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(5)
        (report,) = [event for event in world.seen(RequestFinished) if event.request is request]
        assert report.outcome == outcome_ and isinstance(report.error, error)
        if end not in ("answer", "cancelled", "late"):
            assert report.error is outcome(task)
        assert (report.ref is None) == (end in ("unknown", "draining"))
        assert request.timings.total_s <= world.loop.time()


@virtual
async def test_the_timings_are_what_the_clock_says() -> None:
    async with World(Limits(running=2, waiting=10, max_batch_size=2, max_queue_delay_s=0.25)) as world:
        await world.serve(base_s=1.0)
        first = [world.ask(i) for i in range(2)]
        await asyncio.sleep(0.5)
        last = await world.infer(world.request(3))
        t = last.timings
        assert [t.queue_s, t.batch_s, t.compute_s, t.total_s] == pytest.approx([0.5, 0.25, 1.0, 1.75])
        assert t.batch_size == 1
        assert {task.result().timings.batch_size for task in first} == {2}


@virtual
async def test_a_list_is_timed_by_its_slowest_items() -> None:
    async with World(Limits(running=2, waiting=10, max_batch_size=2)) as world:
        await world.serve(base_s=1.0)
        t = (await world.infer(world.request(1, 2, 3, 4))).timings
        assert (t.queue_s, t.compute_s, t.total_s) == (1.0, 1.0, 2.0)


@virtual
async def test_the_line_is_reported_as_it_is() -> None:
    async with World(Limits(running=2, waiting=10, max_batch_size=1, workers=2)) as world:
        await world.serve()
        await asyncio.gather(*(world.ask() for _ in range(4)))
        line = [(event.running, event.waiting) for event in world.seen(QueueChanged)]
        assert line[:4] == [(1, 0), (2, 0), (2, 1), (2, 2)]
        assert line[-1] == (0, 0)


def test_a_subscriber_that_raises_is_kept_and_hides_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[tuple[str, Event]] = []

    def broken(event: Event) -> None:
        got.append(("broken", event))
        raise RuntimeError("a bug in telemetry")

    events = Events(broken)
    events.subscribe(lambda event: got.append(("sound", event)))
    for state in ("ready", "draining"):
        events.emit(LifecycleChanged(state))
    assert [who for who, _ in got] == ["broken", "sound"] * 2
    assert len(caplog.records) == 2
