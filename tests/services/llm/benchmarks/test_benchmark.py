"""Whole runs."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

import pytest
from tests.services.llm.benchmarks.answers import Answers, prompt

from maru.engine.errors import NoRoom
from maru.services.llm.benchmarks.benchmark import Benchmark, Progress, measured
from maru.services.llm.benchmarks.plan import Level, Objectives, Plan


def plan(*levels: Level, **more: Any) -> Plan:
    return Plan(**{"prompts": (prompt("a"), prompt("b")), "levels": levels, "warmup": prompt("warm"), **more})


def measure(source: Answers, plan: Plan, **options: Any) -> tuple[dict[str, Any], str | None]:
    async def within() -> tuple[dict[str, Any], str | None]:
        benchmark = Benchmark(source, plan, **options)
        error = await measured(benchmark, plan.deadline_s)
        return benchmark.result(model="m"), error

    result, error = asyncio.run(asyncio.wait_for(within(), 60))
    assert json.loads(json.dumps(result)) == result, "as JSON has it, without NaN"
    return result, error


def test_warm_ups_come_first_one_by_one_and_count_for_nothing() -> None:
    source = Answers(pace_s=0.001)
    result, error = measure(source, plan(Level(4, concurrency=2), warmups=2))
    assert error is None
    assert [each.text for each in source.asked] == ["warm", "warm", "a", "b", "a", "b"]
    assert result["warmup"]["requests"] == 2 and result["warmup"]["excluded"] is True
    assert result["levels"][0]["requests"]["total"] == 4
    assert len(result["levels"][0]["records"]) == 4


def test_levels_follow_one_another_and_are_repeated() -> None:
    result, _ = measure(Answers(), plan(Level(2, concurrency=1), Level(2, rate=500.0), repetitions=3, warmups=0))
    assert [level["level"] for level in result["levels"]] == ["1 at once", "500/s"]
    for level in result["levels"]:
        assert level["requests"]["ok"] == 6 and level["repetitions"]["requests_per_s"]["n"] == 3
        assert [record["repetition"] for record in level["records"]] == [0, 0, 1, 1, 2, 2]


def test_a_sweep_lies_between_its_ends() -> None:
    result, _ = measure(Answers(pace_s=0.005), plan(Level(12, concurrency=4), sweep=3, warmups=0))
    slowest, fastest, *between = result["levels"]
    assert (slowest["concurrency"], fastest["concurrency"]) == (1, 4)
    rates = [level["rate"] for level in between]
    assert rates == sorted(rates) and len(rates) == 3
    steps = [rates[0] - slowest["requests_per_s"], rates[1] - rates[0], fastest["requests_per_s"] - rates[2]]
    assert steps == pytest.approx([steps[0]] * 3, rel=0.02)


def test_tokens_per_cpu_second_are_those_of_the_level() -> None:
    clock = count(0.0, 0.5)
    result, _ = measure(Answers(), plan(Level(4, concurrency=1), warmups=0), cpu=lambda: next(clock))
    assert result["levels"][0]["cpu_s"] == 0.5
    assert result["levels"][0]["output_tokens_per_cpu_s"] == 4 * 3 / 0.5


def test_a_model_that_does_not_answer_is_not_measured() -> None:
    source = Answers(fault=lambda number: NoRoom("full"))
    result, error = measure(source, plan(Level(100, concurrency=1)))
    assert error == "the model does not answer (NoRoom)"
    assert len(source.asked) == 1 and result["levels"] == []
    assert result["avg_tokens_per_second"] is None


def test_a_level_without_a_single_answer_ends_the_run() -> None:
    faults = {number: NoRoom("full") for number in range(1, 4)}
    levels = (Level(3, concurrency=1), Level(3, concurrency=2))
    result, error = measure(Answers(fault=faults.get), plan(*levels, warmups=1))
    assert error == "the model does not answer (NoRoom)"
    assert [level["level"] for level in result["levels"]] == ["1 at once"]


def test_a_run_that_takes_too_long_keeps_what_it_has() -> None:
    result, error = measure(
        Answers(pace_s=0.02), plan(Level(2, concurrency=1), Level(500, concurrency=2), warmups=0, deadline_s=0.6)
    )
    assert error == "it was not done within 0.6 s"
    first, second = result["levels"]
    assert first["requests"]["ok"] == 2
    assert 2 <= second["requests"]["ok"] < 500 and second["requests"]["cancelled"] >= 1
    assert second["output_tokens_per_s"] > 0


def test_how_far_it_is_is_told() -> None:
    told: list[Progress] = []
    measure(Answers(), plan(Level(3, concurrency=1), Level(2, concurrency=2), warmups=1), tell=told.append)
    assert told[0].phase == "warmup" and told[-1].phase == "done"
    steps = [(each.level, each.done) for each in told if each.phase == "measuring"]
    assert steps == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2)]
    assert told[-2].output_tokens_per_s and told[-2].ttft_p50_s is not None and told[-2].levels == 2


def test_objectives_are_told_with_the_goodput() -> None:
    goals = Objectives(ttft_s=5.0)
    result, _ = measure(Answers(), plan(Level(2, concurrency=1), objectives=goals, warmups=0))
    assert result["objectives"] == {"ttft_s": 5.0, "tpot_s": None, "e2e_s": None}
    assert result["levels"][0]["goodput"]["share"] == 1.0
