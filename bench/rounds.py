"""Interleaved rounds: everyone is measured in every round, in rotated order; then medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.contenders import Contender
from bench.load import Check, Plan, Requests, warmed
from bench.outcome import Outcome
from bench.page import table
from bench.procs import Server

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

    def keep(self, workload: str, contender: str, round: int, rounds: int, outcome: Outcome, items: int = 1) -> None:
        """Add what an outcome shows whose requests had so many items each, and tell it."""
        kept = figures(outcome, items)
        self.add(workload, contender, round, kept)
        wrong = f"  ERRORS {outcome.errors} {outcome.statuses}" if outcome.errors or len(outcome.statuses) > 1 else ""
        print(
            f"  {round + 1}/{rounds} {workload:<26} {contender:<24} {kept['items_per_s']:>8.0f}/s "
            f"{kept['cpu_ms_per_item']:>7.3f} CPU-ms  p50 {kept['p50_ms']:.2f} ms  p99 {kept['p99_ms']:.2f} ms{wrong}",
            flush=True,
        )

    def tables(self, workloads: Iterable[str], titles: Sequence[str], head: Sequence[str], shown: Sequence[str]) -> str:
        """The figures `shown` of each workload, for those contenders that have them all."""
        parts = []
        for workload in workloads:
            rows = []
            for title in titles:
                spreads = [self.spread(workload, title, figure) for figure in shown]
                if all(spreads):
                    rows.append([title, *map(str, spreads)])
            parts.append(f"### {workload}\n\n{table(head, rows)}\n")
        return "\n".join(parts)

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


def closed_loop(
    server: Server,
    asked: Callable[[], Iterator[bytes]],
    check: Check,
    clients: int,
    seconds: float,
    warm_s: float = 1.5,
) -> Outcome:
    """So many clients for so long, once it is warm; `asked` begins the series of requests anew."""
    plan = Plan(seconds=seconds, clients=clients)
    return warmed(("127.0.0.1", server.port), Requests(asked()), Requests(asked()), plan, warm_s, check, server.pids)


def rotated(things: Sequence[T], by: int) -> list[T]:
    """The same, beginning elsewhere each round."""
    start = by % len(things) if things else 0
    return [*things[start:], *things[:start]]
