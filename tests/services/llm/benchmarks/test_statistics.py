"""Each figure against a calculation by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from maru.services.llm.benchmarks.plan import Level, Objectives
from maru.services.llm.benchmarks.records import Record, Window
from maru.services.llm.benchmarks.statistics import DEFINITIONS, averages, figures, summary

NONE = Objectives()


def record(number: int = 0, **changes: Any) -> Record:
    """Due at 1 s, sent at 1.5, text at 2, 2.25 and 3, ended at 3.25; 4 tokens of 10 read, 4 cached."""
    given: dict[str, Any] = {
        "intended": 1.0, "sent": 1.5, "texts": [2.0, 2.25, 3.0], "ended": 3.25, "outcome": "ok", "prompt_tokens": 10,
        "completion_tokens": 4, "cached_tokens": 4, "prefill_s": 0.5, "decode_s": 1.0,
    }  # fmt: skip
    return Record(number, 0, **{**given, **changes})


def window(*records: Record, seconds: float = 2.0, **more: Any) -> Window:
    return Window(Level(len(records), concurrency=1), list(records), seconds, **more)


def test_the_times_of_one_answer() -> None:
    one = record()
    assert one.queue_s == 0.5
    assert one.ttft_s == 1.0, "from when it was due, not from when it was sent"
    assert one.gaps_s == [0.25, 0.75]
    assert one.tpot_s == 1.25 / 3
    assert one.e2e_s == 2.25


def test_an_answer_of_one_token_has_no_time_per_further_token() -> None:
    assert record(completion_tokens=1, texts=[2.0]).tpot_s is None
    assert record(texts=[]).ttft_s is None and record(texts=[]).tpot_s is None
    assert record(ended=None).e2e_s is None


def test_a_summary_is_numpys() -> None:
    values = [3.0, 1.0, 2.0, 10.0, 7.5]
    told = summary(values)
    assert (told["n"], told["min"], told["max"], told["mean"]) == (5, 1.0, 10.0, 4.7)
    assert told["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-6)
    for name, share in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        assert told[name] == pytest.approx(np.percentile(values, share), rel=1e-6)
    assert summary([2.0])["std"] == 0.0
    assert summary([None, 2.0])["n"] == 1
    assert summary([]) == {"n": 0} | dict.fromkeys(("mean", "std", "min", "p50", "p90", "p95", "p99", "max"))


def test_rates_are_of_complete_answers_only() -> None:
    lost = record(1, outcome="incomplete", error="broken_off", completion_tokens=None, prompt_tokens=None)
    refused = record(2, outcome="error", error="http_429", texts=[], completion_tokens=None, prompt_tokens=None)
    told = figures([window(record(), lost, refused)], NONE)
    assert told["requests"] == {
        "total": 3, "ok": 1, "error": 1, "incomplete": 1, "cancelled": 0, "errors": {"broken_off": 1, "http_429": 1},
    }  # fmt: skip
    assert (told["requests_per_s"], told["output_tokens_per_s"], told["total_tokens_per_s"]) == (0.5, 2.0, 7.0)
    assert told["ttft_s"]["n"] == told["e2e_s"]["n"] == told["tpot_s"]["n"] == 1
    assert told["itl_s"]["n"] == 2, "one a gap"
    assert told["queue_s"]["n"] == 3


def test_the_models_own_rates_leave_out_what_was_cached() -> None:
    told = figures([window(record(), record(1, prefill_s=None, decode_s=None))], NONE)
    assert told["prefill_tokens_per_s"] == 6 / 0.5
    assert told["decode_tokens_per_s"] == 4.0
    assert told["cached_tokens"] == 8
    assert figures([window(record(prefill_s=None, decode_s=None))], NONE)["prefill_tokens_per_s"] is None


def test_tokens_per_cpu_second() -> None:
    assert figures([window(record(), cpu_s=0.5)], NONE)["output_tokens_per_cpu_s"] == 8.0
    assert figures([window(record())], NONE)["output_tokens_per_cpu_s"] is None


def test_repetitions_are_spread_and_not_added_up() -> None:
    told = figures([window(record(), seconds=2.0), window(record(), seconds=4.0)], NONE)
    assert told["output_tokens_per_s"] == 1.5
    assert told["repetitions"]["output_tokens_per_s"]["n"] == 2
    assert told["repetitions"]["output_tokens_per_s"]["std"] == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert told["seconds"] == 6.0


@pytest.mark.parametrize(
    ("objectives", "met"),
    [
        (Objectives(ttft_s=1.0), 2),
        (Objectives(ttft_s=0.9), 1),
        (Objectives(tpot_s=0.4), 0),
        (Objectives(tpot_s=0.5, e2e_s=2.25), 2),
        (Objectives(ttft_s=1.0, e2e_s=2.0), 1),
    ],
)
def test_goodput_is_what_meets_every_objective(objectives: Objectives, met: int) -> None:
    quick = record(1, intended=1.5)
    failed = record(2, outcome="error", texts=[])
    told = figures([window(record(), quick, failed, seconds=4.0)], objectives)["goodput"]
    assert told == {"share": pytest.approx(met / 3, rel=1e-6), "requests_per_s": met / 4, "requests": met}


def test_without_objectives_there_is_no_goodput() -> None:
    assert figures([window(record())], NONE)["goodput"] is None


def test_how_many_were_on_their_way_at_once_and_the_best_second() -> None:
    first = record(0, sent=0.0, ended=2.0, texts=[0.5, 1.9], completion_tokens=4)
    second = record(1, sent=1.0, ended=3.0, texts=[2.2, 2.8], completion_tokens=2)
    third = record(2, sent=2.0, ended=4.0, texts=[3.5], completion_tokens=1)
    told = figures([window(first, second, third)], NONE)
    assert told["peak_concurrency"] == 2, "one that ends as another begins is not beside it"
    assert told["peak_output_tokens_per_s"] == 4.0, "at 1.9 two, at 2.2 and 2.8 one each"


def test_the_documents_averages_are_over_answers() -> None:
    slow = record(1, ended=5.0, texts=[4.0])
    rate, ttft = averages([window(record()), window(slow)])
    assert rate == pytest.approx((4 / 2.25 + 4 / 4) / 2, rel=1e-6)
    assert ttft == 2.0
    assert averages([]) == (None, None)


def test_nothing_at_all_has_figures_too() -> None:
    told = figures([], Objectives(ttft_s=1.0))
    assert told["requests"]["total"] == 0 and told["output_tokens_per_s"] is None
    assert told["goodput"] == {"share": None, "requests_per_s": None, "requests": 0}


def test_every_figure_says_what_it_is() -> None:
    told = figures([window(record())], NONE)
    assert {name for name in told if name.endswith("_s") and name not in DEFINITIONS} == {"cpu_s"}
