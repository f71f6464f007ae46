from __future__ import annotations

import asyncio
import csv
import io
import itertools
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.services.llm.benchmarks.answers import Answers, prompt

from maru.services.llm.benchmarks import plots, report
from maru.services.llm.benchmarks.benchmark import Benchmark
from maru.services.llm.benchmarks.plan import Level, Objectives, Plan
from maru.services.llm.benchmarks.service import result_of
from maru.storage.benchmarks import BenchmarkRun

NASTY = "a | b <script>alert(1)</script> [x](javascript:1) `c`\n# d"


def measured(**more: Any) -> dict[str, Any]:
    async def within() -> dict[str, Any]:
        goals = Objectives(ttft_s=1.0)
        levels = (Level(3, concurrency=1), Level(3, rate=200.0))
        plan = Plan((prompt("a"), prompt("b")), levels, prompt("w"), warmups=1, objectives=goals, repetitions=2)
        benchmark = Benchmark(Answers(), plan)
        await benchmark.run()
        return benchmark.result(model={"id": "m", "digest": "abc"}, environment={"cpu": NASTY}, memory_source="host")

    found = asyncio.run(within())
    run = BenchmarkRun(
        "bench_1", "m", "completed", "ann", {"test_prompts": ["a", NASTY], "max_tokens": 3}, datetime.now(UTC),
        results=found, memory_peak_bytes=2**30, **more,
    )  # fmt: skip
    return result_of(run)


def test_a_line_a_request_and_none_of_what_a_person_wrote() -> None:
    result = measured()
    text = report.requests_csv(result)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12 and "script" not in text
    assert [row["prompt_number"] for row in rows[:3]] == ["0", "1", "0"]
    assert {row["level"] for row in rows} == {"1 at once", "200/s"}
    assert float(rows[0]["e2e_s"]) >= float(rows[0]["ttft_s"]) >= 0


def test_a_line_a_level() -> None:
    rows = list(csv.DictReader(io.StringIO(report.levels_csv(measured()))))
    assert [(row["level"], row["ok"]) for row in rows] == [("1 at once", "6"), ("200/s", "6")]
    assert {row["goodput_share"] for row in rows} == {"1.0"}
    assert {"ttft_s_p99", "itl_s_mean", "output_tokens_per_s"} <= set(rows[0])


def test_a_report_says_everything_and_nothing_of_it_is_markup() -> None:
    text = report.markdown(measured(error="it was <b>slow</b>"))
    assert text.startswith("# Benchmark of m\n")
    for said in ("1 at once", "200/s", "6 / 6", "100 %", "±", "## Environment", "## What the figures are", "1,024.0"):
        assert said in text, said
    assert "<script" not in text.replace("\\<script", "") and "<b>" not in text.replace("\\<b>", "")
    assert "](javascript" not in text.replace("\\[x](javascript", "")
    for line in text.splitlines():
        if line.startswith("| level"):
            columns = line.count("|")
    assert columns == 9
    assert text.count("data:image/svg+xml;base64,") == 4


def test_a_run_without_results_has_a_report_too() -> None:
    run = BenchmarkRun("bench_1", "m", "failed", "ann", {"test_prompts": ["a"]}, datetime.now(UTC), error="interrupted")
    result = result_of(run)
    assert "Nothing was measured" in report.markdown(result) and "interrupted" in report.markdown(result)
    assert report.requests_csv(result).count("\n") == 1 == report.levels_csv(result).count("\n")


@pytest.mark.parametrize("name", ["throughput", "ttft", "itl", "requests"])
def test_plots_are_drawings_within_their_frame(name: str) -> None:
    svg = report.drawn(measured())[name]
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    for mark in root.iter():
        for place, most in (("x", 640), ("cx", 640), ("y", 300), ("cy", 300)):
            if (value := mark.get(place)) is not None:
                assert 0 <= float(value) <= most


@pytest.mark.parametrize("largest", [1e-9, 0.37, 1.0, 9.99, 10.0, 12_345.0, 3e12])
def test_an_axis_goes_to_a_round_number_above_everything(largest: float) -> None:
    svg = plots.bars("t", "u", ["a"], {"s": [largest]})
    ticks = [float(tick) for tick in re.findall(r'text-anchor="end"[^>]*>([^<]+)<', svg)]
    assert largest <= ticks[-1] * 1.001 and ticks[-1] <= largest * 3
    assert 2 <= len(ticks) <= 7


def test_what_is_not_known_has_no_bar_and_names_are_text() -> None:
    svg = plots.bars("<t>", "u", ["<a>", "b"], {"s": [None, 2.0], "z": [None, None]})
    ET.fromstring(svg)
    assert svg.count("<title>") == 1
    assert ET.fromstring(plots.bars("t", "u", [], {})) is not None
    assert ET.fromstring(plots.dots("t", "u", "x", {})) is not None


def places(svg: str) -> list[tuple[float, float, float]]:
    """Where texts that start or are centred are: left, right and baseline, at 7 pixels a letter."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(start|middle)"[^>]*>([^<]+)<', svg)
    widths = [(float(x), float(y), 7 * len(said), anchor) for x, y, anchor, said in found]
    return [(x - (w / 2 if anchor == "middle" else 0), x + w / (2 if anchor == "middle" else 1), y)
            for x, y, w, anchor in widths]  # fmt: skip


@pytest.mark.parametrize("levels", [1, 2, 5, 8, 16])
def test_no_two_words_of_a_plot_are_written_over_each_other(levels: int) -> None:
    names = [f"{n} at once" for n in range(1, levels + 1)]
    drawn = [
        plots.bars("Time to first token", "ms", names, {"p50": [1.0] * levels, "p99": [2.0] * levels}),
        plots.dots("Each request's time to first token", "ms", "due, s", {name: [(0.1, 2.0)] for name in names}),
    ]
    for svg in drawn:
        said = places(svg)
        for one, other in itertools.combinations(said, 2):
            assert abs(one[2] - other[2]) > 8 or one[1] <= other[0] or other[1] <= one[0], (one, other)
