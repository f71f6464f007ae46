from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any

import pytest
from tests.services.llm.benchmarks.answers import Answers, prompt

from maru.engine.errors import ModelFailed, QueueFull
from maru.services.llm.benchmarks.courtesy import Alone
from maru.services.llm.benchmarks.load import Load, SourceError
from maru.services.llm.benchmarks.plan import Level
from maru.services.llm.benchmarks.records import Window


def measure(source: Answers, level: Level, **options: Any) -> Window:
    prompts = options.pop("prompts", [prompt()])
    courtesy = options.pop("courtesy", Alone())
    return asyncio.run(asyncio.wait_for(Load(source, prompts, level, courtesy, **options).run(), 30))


def test_a_closed_loop_has_so_many_on_their_way_and_no_more() -> None:
    source = Answers(pace_s=0.01)
    window = measure(source, Level(12, concurrency=3))
    assert source.most == 3 and len(source.asked) == 12
    assert [record.outcome for record in window.records] == ["ok"] * 12
    assert [record.number for record in window.records] == list(range(12))
    assert all(record.queue_s < 0.05 for record in window.records), "a client that is free asks at once"


def test_prompts_are_asked_in_turn() -> None:
    source = Answers()
    window = measure(source, Level(5, concurrency=1), prompts=[prompt("a"), prompt("b")])
    assert [each.text for each in source.asked] == ["a", "b", "a", "b", "a"]
    assert [record.prompt for record in window.records] == [0, 1, 0, 1, 0]


def test_the_first_token_is_the_first_that_is_not_empty() -> None:
    """Neither the reading of the prompt nor an empty piece is one."""
    (record,) = measure(Answers(pace_s=0.1), Level(1, concurrency=1)).records
    assert record.ttft_s is not None and record.ttft_s >= 0.09
    assert len(record.texts) == 3 and all(0.05 < gap < 1.0 for gap in record.gaps_s)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (2, 3, 1)
    assert (record.prefill_s, record.decode_s, record.finish_reason) == (0.5, 0.25, "length")


def test_an_even_rate_is_kept() -> None:
    source = Answers(pace_s=0.05)
    window = measure(source, Level(20, rate=40.0, arrivals="constant"))
    dues = [record.intended for record in window.records]
    assert dues == pytest.approx([number / 40 for number in range(20)], abs=1e-6)
    assert source.most >= 3, "and nobody waits for those before"


def test_people_come_at_random_and_again_alike_with_the_same_seed() -> None:
    dues = [
        [record.intended for record in measure(Answers(), Level(40, rate=400.0), seed=seed).records]
        for seed in (1, 1, 2)
    ]
    assert dues[0] == pytest.approx(dues[1], abs=1e-9) and dues[0] != pytest.approx(dues[2], abs=1e-3)
    gaps = [after - before for before, after in pairwise(dues[0])]
    assert max(gaps) > 2 * min(gaps), "an even rate would have them alike"
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 400, rel=0.6)


def test_a_stall_is_charged_to_all_who_were_due_in_it() -> None:
    """The server takes one at a time, 100 ms each. Whoever measures from when a request was sent sees 100 ms; from
    when it was due, each waits for all before it."""
    window = measure(
        Answers(pace_s=0.1), Level(5, concurrency=1, rate=100.0, arrivals="constant"), prompts=[prompt("a", 1)]
    )
    waits = [record.queue_s for record in window.records]
    times = [record.ttft_s or 0.0 for record in window.records]
    assert waits[4] >= 0.3 and times[4] >= 0.4
    assert waits == sorted(waits) and times == sorted(times)


def test_what_goes_wrong_is_a_record_of_its_own() -> None:
    faults = {
        0: QueueFull("full"),
        1: ModelFailed("later"),
        2: SourceError("http_500"),
        3: TimeoutError(),
        4: OSError(),
    }
    window = measure(Answers(fault=faults.get), Level(6, concurrency=1))
    assert [(record.outcome, record.error) for record in window.records] == [
        ("error", "QueueFull"), ("incomplete", "ModelFailed"), ("error", "http_500"), ("error", "TimeoutError"),
        ("error", "OSError"), ("ok", None),
    ]  # fmt: skip
    assert all(record.ended is not None for record in window.records)


def test_an_answer_without_an_end_is_incomplete() -> None:
    class Short(Answers):
        async def _parts(self, prompt: Any, fault: Any) -> Any:
            async for part in super()._parts(prompt, fault):
                if type(part).__name__ != "Finished":
                    yield part

    (record,) = measure(Short(), Level(1, concurrency=1)).records
    assert (record.outcome, record.error) == ("incomplete", "broken_off")


def test_a_fault_of_the_benchmark_itself_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        measure(Answers(fault=lambda number: ZeroDivisionError()), Level(5, concurrency=2))


def test_one_that_is_broken_off_keeps_what_it_has() -> None:
    async def run() -> Window:
        load = Load(Answers(pace_s=0.02), [prompt()], Level(100, concurrency=2), Alone())
        task = asyncio.create_task(load.run())
        while len(load.records) < 4:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return load.window()

    window = asyncio.run(asyncio.wait_for(run(), 30))
    outcomes = [record.outcome for record in window.records]
    assert outcomes.count("ok") >= 4 and outcomes.count("cancelled") == 2
    assert window.seconds > 0


def test_what_it_cost_is_the_difference() -> None:
    clock = count(10.0, 2.5)
    assert measure(Answers(), Level(1, concurrency=1), cpu=lambda: next(clock)).cpu_s == 2.5
    assert measure(Answers(), Level(1, concurrency=1)).cpu_s is None


class Visitors:
    """Somebody comes `after_s` after the first request was sent, and stays for `stay_s`."""

    def __init__(self, after_s: float, stay_s: float) -> None:
        self.after_s, self.stay_s = after_s, stay_s
        self.here = asyncio.Event()
        self.cuts: set[asyncio.Timeout] = set()
        self.came = False

    @property
    def busy(self) -> bool:
        return self.here.is_set()

    @contextmanager
    def ours(self, cut: asyncio.Timeout) -> Iterator[None]:
        if not self.came:
            self.came = True
            asyncio.get_running_loop().call_later(self.after_s, self._come)
        self.cuts.add(cut)
        try:
            yield
        finally:
            self.cuts.discard(cut)

    async def quiet(self) -> None:
        while self.here.is_set():
            await asyncio.sleep(0.005)

    def _come(self) -> None:
        self.here.set()
        for cut in self.cuts:
            cut.reschedule(0.0)
        asyncio.get_running_loop().call_later(self.stay_s, self.here.clear)


def test_who_comes_in_between_has_it_stand_aside_and_ask_again() -> None:
    source = Answers(pace_s=0.05)
    window = measure(source, Level(6, concurrency=3), courtesy=Visitors(0.1, 0.4))
    assert [record.outcome for record in window.records] == ["ok"] * 6
    assert [record.number for record in window.records] == list(range(6)), "each once"
    assert window.yielded == 3 and len(source.asked) == 9
    assert window.yielded_s == pytest.approx(0.4, abs=0.2), "once, though three stood aside"
    assert window.seconds == pytest.approx(0.1 + 2 * 0.15, abs=0.25), "and it does not count"
    assert all((record.ttft_s or 9) < 0.3 for record in window.records), "nobody's figures have the visit in them"


def test_an_open_loop_goes_on_where_it_was_and_does_not_catch_up() -> None:
    source = Answers(pace_s=0.01)
    window = measure(
        source, Level(30, rate=50.0, arrivals="constant"), courtesy=Visitors(0.2, 0.5), prompts=[prompt("a", 1)]
    )
    assert [record.outcome for record in window.records] == ["ok"] * 30
    assert all((record.ttft_s or 9) < 0.2 for record in window.records)
    assert source.most <= 8, "those who were due meanwhile don't all come at once"
    assert window.yielded_s == pytest.approx(0.5, abs=0.2)
    assert window.seconds == pytest.approx(29 / 50, abs=0.3)


def test_a_place_in_the_line_that_was_given_to_somebody_else_is_no_error() -> None:
    """The engine refuses a benchmark's request for the sake of a person's: QueueFull, and not the cut, comes first."""

    class Displaced(Answers):
        def __init__(self, visitors: Visitors) -> None:
            super().__init__(fault=self._refuse)
            self._visitors = visitors

        def _refuse(self, number: int) -> Exception | None:
            if number:
                return None
            self._visitors.here.set()
            asyncio.get_running_loop().call_later(0.1, self._visitors.here.clear)
            return QueueFull("the queue is full, and others wait with less")

    visitors = Visitors(60.0, 0.0)
    (record,) = measure(Displaced(visitors), Level(1, concurrency=1), courtesy=visitors).records
    assert record.outcome == "ok" and record.intended >= 0.09
