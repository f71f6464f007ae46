"""A result for people and for spreadsheets: Markdown with plots, and CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maru.services.llm.benchmarks import plots

Result = Mapping[str, Any]
"""A `BenchmarkResult` as JSON has it."""

_REQUEST = (
    "level", "repetition", "number", "prompt_number", "outcome", "error", "finish_reason", "prompt_tokens",
    "completion_tokens", "cached_tokens", "due_s", "queue_s", "ttft_s", "tpot_s", "e2e_s", "prefill_s", "decode_s",
)  # fmt: skip
_RATES = (
    "requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "output_tokens_per_cpu_s",
    "prefill_tokens_per_s", "decode_tokens_per_s", "peak_output_tokens_per_s",
)  # fmt: skip
_TIMES = ("ttft_s", "itl_s", "tpot_s", "e2e_s", "queue_s")
_SPREAD = ("mean", "std", "p50", "p90", "p95", "p99")


def requests_csv(result: Result) -> str:
    """A line a request. No text of a prompt or an answer."""
    rows = io.StringIO()
    table = csv.DictWriter(rows, _REQUEST, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(result["detailed_results"])
    return rows.getvalue()


def levels_csv(result: Result) -> str:
    """A line a level, each figure a column."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    spreads = [f"{name}_{share}" for name in _TIMES for share in _SPREAD]
    table.writerow(("level", "concurrency", "rate", "requests", "ok", "seconds", *_RATES, *spreads, "goodput_share"))
    for level in result["levels"]:
        counts, good = level["requests"], level["goodput"] or {}
        table.writerow(
            (
                level["level"], level["concurrency"], level["rate"], counts["total"], counts["ok"], level["seconds"],
                *(level[name] for name in _RATES), *(level[name][share] for name in _TIMES for share in _SPREAD),
                good.get("share"),
            )
        )  # fmt: skip
    return rows.getvalue()


def drawn(result: Result) -> dict[str, str]:
    """The plots by name, as SVG."""
    levels = result["levels"]
    labels = [level["level"] for level in levels]
    found = {
        "throughput": plots.bars(
            "Output", "tokens/s", labels, {"all answers together": [level["output_tokens_per_s"] for level in levels]}
        ),
        "ttft": plots.bars("Time to first token", "ms", labels, _milliseconds(levels, "ttft_s")),
        "itl": plots.bars("Between two tokens", "ms", labels, _milliseconds(levels, "itl_s")),
    }
    by_level: dict[str, list[tuple[float, float]]] = {}
    for request in result["detailed_results"]:
        if request["ttft_s"] is not None and request["outcome"] == "ok":
            by_level.setdefault(request["level"], []).append((request["due_s"], 1e3 * request["ttft_s"]))
    found["requests"] = plots.dots(
        "Each request's time to first token", "ms", "due, s", dict(list(by_level.items())[:4])
    )
    return found


def _milliseconds(levels: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[float | None]]:
    return {
        share: [None if level[name][share] is None else 1e3 * level[name][share] for level in levels]
        for share in ("p50", "p99")
    }


def within(name: str, svg: str) -> str:
    """A plot as part of the text."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def markdown(result: Result, place: Callable[[str, str], str] = within) -> str:
    """The report. `place` is given each plot's name and SVG, and says what address it has in the text."""
    about = [
        f"# Benchmark of {_cell(result['model_id'])}",
        "",
        f"`{result['benchmark_id']}`, {result['status']}"
        + (f" ({_cell(result['error'])})" if result["error"] else "")
        + f", begun {result['started_at'] or 'not yet'}.",
        "",
    ]
    figures = [*_rates(result), "", *_latencies(result), ""] if result["levels"] else ["Nothing was measured.", ""]
    pictures = [f"![{name}]({place(name, svg)})\n" for name, svg in drawn(result).items()] if result["levels"] else []
    return "\n".join([*about, *figures, *pictures, *_settings(result), *_definitions(result)])


def _rates(result: Result) -> list[str]:
    head = ("level", "ok / all", "s", "requests/s", "output tokens/s", "total tokens/s", "tokens/CPU s", "prefill/s",
            "decode/s", "cached", "goodput")  # fmt: skip
    rows = []
    for level in result["levels"]:
        counts, good, repeated = level["requests"], level["goodput"], level["repetitions"]["output_tokens_per_s"]
        output = _number(level["output_tokens_per_s"])
        if repeated["n"] > 1:
            output += f" ± {_number(repeated['std'])}"
        rows.append(
            (
                level["level"], f"{counts['ok']} / {counts['total']}", _number(level["seconds"]),
                _number(level["requests_per_s"]), output, _number(level["total_tokens_per_s"]),
                _number(level["output_tokens_per_cpu_s"]), _number(level["prefill_tokens_per_s"]),
                _number(level["decode_tokens_per_s"]), str(level["cached_tokens"]),
                "" if good is None else f"{_number(100 * (good['share'] or 0.0))} %",
            )
        )  # fmt: skip
    return _table(head, rows)


def _latencies(result: Result) -> list[str]:
    rows = [
        (level["level"], name.removesuffix("_s"), *(_number(level[name][share], 1e3) for share in _SPREAD))
        for level in result["levels"]
        for name in _TIMES
    ]
    return _table(("level", "ms", *_SPREAD), rows)


def _settings(result: Result) -> list[str]:
    config = {**result["config"], "test_prompts": f"{len(result['config'].get('test_prompts', ()))} prompts"}
    config.pop("warmup_prompt", None)
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ("Model", result["model"] or {}),
        ("Environment", result["environment"] or {}),
        ("Settings", config),
    ]
    lines = []
    for title, values in parts:
        if values:
            lines += [
                f"## {title}",
                "",
                *_table(("", ""), [(name, _said(value)) for name, value in values.items()]),
                "",
            ]
    if result["memory_peak_mb"] is not None:
        lines += [f"Memory in use at most: {result['memory_peak_mb']:,} MiB ({result['memory_source']}).", ""]
    return lines


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each is not None)
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return "" if value is None else str(value)


def _definitions(result: Result) -> list[str]:
    said = [(name, text) for name, text in result["definitions"].items()]
    return ["## What the figures are", "", *_table(("", ""), said), ""] if said else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def _cell(text: str) -> str:
    """What can't end its cell, begin a tag or a link."""
    for mark in ("\\", "|", "<", "[", "`"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _number(value: float | None, times: float = 1.0) -> str:
    return "" if value is None else f"{value * times:.4g}"
