"""Numbers of records, each as `DEFINITIONS` says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from maru.services.llm.benchmarks.plan import Objectives
from maru.services.llm.benchmarks.records import Record, Window

DEFINITIONS = {
    "ttft_s": "Time to first token: from when the request was due to the first piece of text that is not empty.",
    "itl_s": "Inter-token latency: every gap between two pieces of text of one answer, of all answers together.",
    "tpot_s": "Time per output token: (e2e_s - ttft_s) / (completion tokens - 1), one figure an answer.",
    "e2e_s": "End to end: from when the request was due to the end of its answer.",
    "queue_s": "From when the request was due to when it was sent, which is the client's delay and not the server's.",
    "due": "In a closed loop when the client is free, in an open loop by the schedule, whatever became of the others.",
    "seconds": "From when the first request was due to the end of the last answer, without the time stood aside.",
    "requests_per_s": "Complete answers / seconds.",
    "output_tokens_per_s": "Completion tokens of complete answers / seconds.",
    "total_tokens_per_s": "Prompt and completion tokens of complete answers / seconds.",
    "peak_output_tokens_per_s": "The most within any one second, an answer's tokens being shared out among its pieces.",
    "prefill_tokens_per_s": "Prompt tokens that were not cached / the model's own measure of the time it read them.",
    "decode_tokens_per_s": "Completion tokens / the model's own measure of the time it made them, answer by answer.",
    "output_tokens_per_cpu_s": "Completion tokens / CPU seconds of all of the server's processes meanwhile.",
    "goodput": "Complete answers that meet every objective: their share of all requests, and their number / seconds.",
    "avg_tokens_per_second": "Document 004's: the mean of tokens / e2e_s over complete answers.",
    "avg_time_to_first_token": "Document 004's: the mean of ttft_s over complete answers, in seconds.",
    "percentiles": "Interpolated linearly between the two nearest values; std is that of a sample.",
    "tokens": "Counted by the model. If it does not tell, pieces of text are counted, and `counted_by_pieces` is true.",
}


def summary(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """How these are spread. Without any all is None."""
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return {"n": 0, **dict.fromkeys(("mean", "std", "min", "p50", "p90", "p95", "p99", "max"))}
    p50, p90, p95, p99 = np.percentile(known, (50, 90, 95, 99))
    figures = {
        "mean": known.mean(),
        "std": known.std(ddof=1) if known.size > 1 else 0.0,
        "min": known.min(),
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99,
        "max": known.max(),
    }
    return {"n": int(known.size), **{name: _rounded(float(value)) for name, value in figures.items()}}


def figures(windows: Sequence[Window], objectives: Objectives) -> dict[str, Any]:
    """Of one level, measured once or more often: latencies of all answers together, rates of each time."""
    records = [record for window in windows for record in window.records]
    good = [record for record in records if record.outcome == "ok"]
    return {
        "requests": _outcomes(records),
        "seconds": _rounded(sum(window.seconds for window in windows)),
        "ttft_s": summary(record.ttft_s for record in good),
        "itl_s": summary(gap for record in good for gap in record.gaps_s),
        "tpot_s": summary(record.tpot_s for record in good),
        "e2e_s": summary(record.e2e_s for record in good),
        "queue_s": summary(record.queue_s for record in records),
        **_tokens(good),
        **_rates(windows, good),
        "peak_concurrency": max((_most_at_once(window.records) for window in windows), default=0),
        "goodput": _goodput(windows, records, objectives),
        "yielded": {
            "requests": sum(window.yielded for window in windows),
            "seconds": _rounded(sum(window.yielded_s for window in windows)),
        },
    }


def averages(windows: Sequence[Window]) -> tuple[float | None, float | None]:
    """The document's two averages, over all levels."""
    good = [record for window in windows for record in window.records if record.outcome == "ok"]
    rates = summary((record.completion_tokens or 0) / record.e2e_s for record in good if record.e2e_s)
    return rates["mean"], summary(record.ttft_s for record in good)["mean"]


def _outcomes(records: Sequence[Record]) -> dict[str, Any]:
    errors: dict[str, int] = {}
    for record in records:
        if record.error is not None:
            errors[record.error] = errors.get(record.error, 0) + 1
    counts = {
        kind: sum(record.outcome == kind for record in records) for kind in ("ok", "error", "incomplete", "cancelled")
    }
    return {"total": len(records), **counts, "errors": errors}


def _tokens(good: Sequence[Record]) -> dict[str, Any]:
    return {
        "prompt_tokens": sum(record.prompt_tokens or 0 for record in good),
        "completion_tokens": sum(record.completion_tokens or 0 for record in good),
        "cached_tokens": sum(record.cached_tokens or 0 for record in good),
        "prefill_tokens_per_s": _ratio(
            sum((r.prompt_tokens or 0) - (r.cached_tokens or 0) for r in good if r.prefill_s),
            sum(record.prefill_s or 0.0 for record in good),
        ),
        "decode_tokens_per_s": _ratio(
            sum(record.completion_tokens or 0 for record in good if record.decode_s),
            sum(record.decode_s or 0.0 for record in good),
        ),
    }


def _rates(windows: Sequence[Window], good: Sequence[Record]) -> dict[str, Any]:
    each: dict[str, list[float | None]] = {"requests_per_s": [], "output_tokens_per_s": [], "total_tokens_per_s": []}
    costs: list[float | None] = []
    for window in windows:
        done = [record for record in window.records if record.outcome == "ok"]
        made = sum(record.completion_tokens or 0 for record in done)
        read = sum(record.prompt_tokens or 0 for record in done)
        each["requests_per_s"].append(_ratio(len(done), window.seconds))
        each["output_tokens_per_s"].append(_ratio(made, window.seconds))
        each["total_tokens_per_s"].append(_ratio(made + read, window.seconds))
        costs.append(_ratio(made, window.cpu_s))
    spreads = {name: summary(values) for name, values in each.items()}
    return {
        **{name: spread["mean"] for name, spread in spreads.items()},
        "output_tokens_per_cpu_s": summary(costs)["mean"],
        "cpu_s": _rounded(sum(w.cpu_s or 0.0 for w in windows)) if any(w.cpu_s is not None for w in windows) else None,
        "peak_output_tokens_per_s": max((_peak(window.records) for window in windows), default=0.0),
        "repetitions": {**spreads, "output_tokens_per_cpu_s": summary(costs)},
    }


def _goodput(windows: Sequence[Window], records: Sequence[Record], objectives: Objectives) -> dict[str, Any] | None:
    if not objectives:
        return None
    met = sum(_meets(record, objectives) for record in records)
    seconds = sum(window.seconds for window in windows)
    return {"share": _ratio(met, len(records)), "requests_per_s": _ratio(met, seconds), "requests": met}


def _meets(record: Record, objectives: Objectives) -> bool:
    if record.outcome != "ok":
        return False
    measured = (
        (record.ttft_s, objectives.ttft_s),
        (record.tpot_s, objectives.tpot_s),
        (record.e2e_s, objectives.e2e_s),
    )
    return all(most is None or value is None or value <= most for value, most in measured)


def _most_at_once(records: Sequence[Record]) -> int:
    changes = sorted(
        [(record.sent, 1) for record in records]
        + [(record.ended, -1) for record in records if record.ended is not None]
    )
    here = most = 0
    for _, change in changes:
        here += change
        most = max(most, here)
    return most


def _peak(records: Sequence[Record]) -> float:
    events = sorted(
        (at, (record.completion_tokens or 0) / len(record.texts))
        for record in records
        if record.outcome == "ok"
        for at in record.texts
    )
    most, inside, first = 0.0, 0.0, 0
    for at, tokens in events:
        inside += tokens
        while events[first][0] <= at - 1.0:
            inside -= events[first][1]
            first += 1
        most = max(most, inside)
    return _rounded(most)


def _ratio(of: float, by: float | None) -> float | None:
    return _rounded(of / by) if by else None


def _rounded(value: float) -> float:
    """Seven digits, as no clock here tells more."""
    return float(f"{value:.7g}")
