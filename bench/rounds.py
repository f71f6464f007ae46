"""Interleaved rounds: everyone is measured in every round, in rotated order; then medians and ratios."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.contenders import BENCH, Contender
from bench.outcome import Outcome
from bench.procs import Server

RESULTS = BENCH / "results"
MIB = 2**20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds: its median, and the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of nothing."""
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}-{_short(self.high)})"


def _short(value: float) -> str:
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one contender did with one workload in one round."""

    workload: str
    contender: str
    round: int
    figures: dict[str, Any]


class Cells:
    """All cells of a run."""

    def __init__(self) -> None:
        self.all: list[Cell] = []
        self.failed: dict[str, str] = {}
        """Contender to why it is not, or not wholly, measured."""

    def add(self, workload: str, contender: str, round: int, figures: dict[str, Any]) -> None:
        self.all.append(Cell(workload, contender, round, figures))

    def values(self, workload: str, contender: str, figure: str) -> dict[int, float]:
        """The figure by round."""
        return {
            cell.round: cell.figures[figure]
            for cell in self.all
            if (cell.workload, cell.contender) == (workload, contender) and figure in cell.figures
        }

    def spread(self, workload: str, contender: str, figure: str) -> Spread | None:
        return Spread.of(list(self.values(workload, contender, figure).values()))

    def ratio(self, workload: str, figure: str, one: str, other: str) -> Spread | None:
        """`one` divided by `other`, round by round, so that what slows the machine down slows both."""
        ones, others = (self.values(workload, name, figure) for name in (one, other))
        return Spread.of([ones[n] / others[n] for n in ones if others.get(n)])

    def to_json(self) -> list[dict[str, Any]]:
        cells = self.all
        return [{"workload": c.workload, "contender": c.contender, "round": c.round, **c.figures} for c in cells]


def figures(outcome: Outcome, items: int) -> dict[str, Any]:
    """What is kept of an outcome whose requests had `items` items each."""
    done = max(1, outcome.ok) * items
    return {
        "items_per_s": outcome.ok_per_s * items,
        "requests_per_s": outcome.ok_per_s,
        "cpu_ms_per_item": 1000 * outcome.server_cpu_s / done,
        "p50_ms": outcome.latency.p50,
        "p95_ms": outcome.latency.p95,
        "p99_ms": outcome.latency.p99,
        "max_ms": outcome.latency.max,
        "rss_mib": outcome.rss_max / MIB,
        "pss_mib": outcome.pss / MIB,
        "client_cpu_ms_per_request": outcome.client_cpu_ms_per_answer,
        "other_cores_busy": outcome.other_cores_busy,
        "answers": outcome.ok,
        "seconds": outcome.seconds,
        "statuses": outcome.statuses,
        "errors": outcome.errors,
    }


class Stage:
    """All contenders' servers, started once; outside its turn each is stopped where it stands (SIGSTOP).

    What does not start, or is not prepared, is left out and its reason kept.
    """

    def __init__(self, contenders: Sequence[Contender], failed: dict[str, str]) -> None:
        self._contenders, self._failed = contenders, failed
        self._stack = ExitStack()
        self._servers: dict[str, Server] = {}
        self.started_s: dict[str, float] = {}

    def __enter__(self) -> Stage:
        for contender in self._contenders:
            if not contender.prepared:
                self._fail(contender, "not prepared: run `python -m bench.prepare`")
            elif contender.pausable:
                try:
                    server = self._stack.enter_context(contender.server())
                except RuntimeError as error:
                    self._fail(contender, str(error))
                    continue
                self._servers[contender.name] = server
                self.started_s[contender.name] = server.started_s
                server.pause()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _fail(self, contender: Contender, why: str) -> None:
        self._failed[contender.name] = why
        print(f"  {contender.title}: left out: {why.strip().splitlines()[-1]}", flush=True)

    @property
    def standing(self) -> list[Contender]:
        """The contenders that can be measured."""
        return [c for c in self._contenders if c.name not in self._failed]

    @contextmanager
    def turn(self, contender: Contender) -> Iterator[Server]:
        """The contender's server, running, while all others stand still."""
        if not contender.pausable:
            with contender.server() as server:
                self.started_s[contender.name] = server.started_s
                yield server
            return
        server = self._servers[contender.name]
        server.resume()
        try:
            yield server
        finally:
            server.pause()


def rotated(things: Sequence[T], by: int) -> list[T]:
    """The same, beginning elsewhere each round."""
    start = by % len(things) if things else 0
    return [*things[start:], *things[:start]]


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


def write(name: str, result: dict[str, Any], page: str) -> None:
    """`results/NAME.json` and `results/NAME.md`, and the page on the screen."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(page)
    print(page)
