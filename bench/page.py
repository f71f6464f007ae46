"""What a benchmark is asked with, and what it leaves: a result, and a page for people."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contenders import BENCH, Contender

RESULTS = BENCH / "results"
ONE_ROUND = "one round of 2 s: to see that it works"


def command_line(about: str | None, name: str, quick: str) -> argparse.ArgumentParser:
    """A parser of what every benchmark takes: --quick, and --name of the files in `results`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--name", default=name, help="of the files in bench/results")
    return parser


def by_rounds(about: str | None, name: str, quick: str = ONE_ROUND) -> argparse.ArgumentParser:
    """The same for one of interleaved rounds."""
    parser = command_line(about, name, quick)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    return parser


def machine() -> dict[str, Any]:
    """What this ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def where(about: dict[str, Any]) -> str:
    """The machine and the day, for a heading."""
    return f"{about['date'][:10]}, {about['cores']} cores ({about['cpu']})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def goals_table(goals: Iterable[Mapping[str, Any]], what: str, digits: str = ".2f") -> str:
    """What was found, what was wanted, and whether it was met."""
    rows = []
    for goal in goals:
        spread = f" ({goal['low']:.2f}-{goal['high']:.2f})" if "low" in goal else ""
        found = f"{goal['value']:{digits}}{spread}"
        rows.append([goal["what"], found, goal["goal"], "met" if goal["met"] else "**missed**"])
    return table(["", what, "goal", ""], rows)


def entrants(contenders: Iterable[Contender], started_s: Mapping[str, float] | None = None) -> dict[str, Any]:
    """How each was set up, for the result."""
    return {
        c.name: {"title": c.title, "settings": c.settings, "versions": c.versions()}
        | ({} if started_s is None else {"started_s": started_s.get(c.name)})
        for c in contenders
    }


def left_out(failed: Mapping[str, str]) -> list[str]:
    """A line for each that was not, or not wholly, measured."""
    return [f"- left out: {name}: `{why.strip().splitlines()[-1]}`" for name, why in failed.items()]


def write(name: str, result: dict[str, Any], page: str) -> None:
    """`results/NAME.json` and `results/NAME.md`, and the page on the screen."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(page)
    print(page)
