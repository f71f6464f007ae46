"""What an engine costs: Maru, bare FastAPI, LitServe, BentoML and Ray Serve around models that cost nothing.

    python -m bench.engine [--quick] [--rounds 5] [--seconds 5] [--pin]

`echo` is pure overhead; `device` sleeps 5 ms and 0.1 ms an item behind a lock, so that batching shows. The
value in every answer is checked. --pin puts servers on the first core and the load on the last; without it
everyone may use all of them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import orjson

from bench.contenders import Contender, models
from bench.contenders.engine import contenders
from bench.http1 import http_request
from bench.page import by_rounds, entrants, goals_table, left_out, machine, table, where, write
from bench.procs import Server
from bench.rounds import Cells, Stage, closed_loop, rotated

IDEAL = 32 / 0.0082
"""Items a second of the device when every batch is full: 32 in 5 ms + 32 x 0.1 ms."""


@dataclass(frozen=True, slots=True)
class Workload:
    model: str
    clients: int

    @property
    def name(self) -> str:
        return f"{self.model}, {self.clients} client{'s' * (self.clients > 1)}"


WORKLOADS = (Workload("echo", 1), Workload("echo", 32), Workload("device", 64))


class Windows:
    """Windows of 12 x 18 numbers, and what a model must say of each."""

    def __init__(self, count: int = 512) -> None:
        rng = random.Random("windows")
        self.all = [[[round(rng.uniform(-9, 9), 4) for _ in range(18)] for _ in range(12)] for _ in range(count)]
        self._values = [models.value(window) for window in self.all]

    def check(self, number: int, body: bytes) -> bool:
        """Whether the body is the value of the window of request `number`, however it is wrapped."""
        try:
            found = orjson.loads(body)
            while not isinstance(found, float | int):
                found = found["value"] if isinstance(found, dict) else found[0]
        except (ValueError, LookupError, TypeError):
            return False
        return abs(found - self._values[number % len(self._values)]) < 1e-9

    def requests(self, contender: Contender, port: int) -> Iterator[bytes]:
        """An endless series."""
        made = [
            http_request("POST", f"127.0.0.1:{port}", contender.path, json.dumps(contender.body(window)).encode())
            for window in self.all
        ]
        return cycle(made)


class Run:
    """One comparison."""

    def __init__(self, rounds: int, seconds: float, pin: bool) -> None:
        self.rounds, self.seconds, self.pin = rounds, seconds, pin
        self.cells = Cells()
        self.started_s: dict[str, float] = {}
        self._windows = Windows()

    def everyone(self, workloads: Sequence[Workload]) -> None:
        """All cells: model by model, and for each the rounds."""
        for model in dict.fromkeys(workload.model for workload in workloads):
            with Stage(contenders(model), self.cells.failed) as stage:
                for round in range(self.rounds):
                    for workload in [workload for workload in workloads if workload.model == model]:
                        for contender in rotated(stage.standing, round):
                            self._turn(stage, contender, workload, round)
                self.started_s |= stage.started_s

    def _turn(self, stage: Stage, contender: Contender, workload: Workload, round: int) -> None:
        try:
            with stage.turn(contender) as server:
                self._measure(contender, server, workload, round)
        except (AssertionError, RuntimeError) as error:
            self.cells.failed[f"{contender.name}: {workload.name}"] = str(error)[-500:]
            print(f"  {contender.title}: {workload.name}: failed: {str(error)[-300:]}", flush=True)

    def _measure(self, contender: Contender, server: Server, workload: Workload, round: int) -> None:
        if self.pin:
            _pin(server)
        asked = partial(self._windows.requests, contender, server.port)
        outcome = closed_loop(server, asked, self._windows.check, workload.clients, self.seconds)
        self.cells.keep(workload.name, contender.title, round, self.rounds, outcome)


def _pin(server: Server) -> None:
    """The servers' processes on the first core, this one on the last."""
    cores = sorted(os.sched_getaffinity(0) | {0})
    for pid in server.pids():
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            os.sched_setaffinity(int(task), {cores[0]})


HEAD = ("", "requests/s", "CPU-ms a request", "p50 ms", "p99 ms", "RSS MiB", "PSS MiB", "others' cores")


def page_of(run: Run, workloads: Sequence[Workload]) -> tuple[str, list[dict[str, Any]]]:
    """The tables, and the goals of issue 2."""
    titles = [contender.title for contender in contenders("echo")]
    parts = []
    for workload in workloads:
        rows = []
        for title in titles:
            spreads = [
                run.cells.spread(workload.name, title, figure)
                for figure in (
                    "items_per_s",
                    "cpu_ms_per_item",
                    "p50_ms",
                    "p99_ms",
                    "rss_mib",
                    "pss_mib",
                    "other_cores_busy",
                )
            ]
            if spreads[0] is not None:
                rows.append(
                    [
                        title,
                        *(str(spread) for spread in spreads[:2]),
                        *(f"{s.median:.1f}" for s in spreads[2:] if s),
                    ]
                )
        parts.append(f"### {workload.name}\n\n{table(HEAD, rows)}\n")
    goals = _goals(run, titles)
    return "\n".join([goals_table(goals, "median") + "\n", *parts]), goals


def _goals(run: Run, titles: Sequence[str]) -> list[dict[str, Any]]:
    goals: list[dict[str, Any]] = []

    def goal(what: str, value: float | None, text: str, met: bool) -> None:
        if value is not None:
            goals.append({"what": what, "value": value, "goal": text, "met": met})

    echo = WORKLOADS[1].name
    floor = run.cells.ratio(echo, "cpu_ms_per_item", "Maru", "bare FastAPI")
    if floor:
        goal(f"{echo}: CPU, Maru / bare FastAPI", floor.median, "<= 1.25", floor.median <= 1.25)
    for other in titles[2:]:
        for figure, what in (("cpu_ms_per_item", "CPU"), ("items_per_s", "requests/s")):
            ratio = run.cells.ratio(echo, figure, "Maru", other)
            if ratio:
                ahead = ratio.median < 1 if what == "CPU" else ratio.median > 1
                goal(f"{echo}: {what}, Maru / {other}", ratio.median, "< 1" if what == "CPU" else "> 1", ahead)
    device = run.cells.spread(WORKLOADS[2].name, "Maru", "items_per_s")
    if device:
        share = device.median / IDEAL
        goal(f"{WORKLOADS[2].name}: Maru, of {IDEAL:.0f}/s (32 in 8.2 ms)", share, ">= 0.90", share >= 0.9)
    return goals


def main() -> None:
    """The command line above."""
    parser = by_rounds(__doc__, "engine")
    parser.add_argument("--pin", action="store_true")
    given = parser.parse_args()
    run = Run(given.rounds or (1 if given.quick else 5), given.seconds or (2.0 if given.quick else 5.0), given.pin)
    about = machine()
    if given.pin:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    run.everyone(WORKLOADS)
    tables, goals = page_of(run, WORKLOADS)
    everyone = [contender for model in ("echo", "device") for contender in contenders(model) if contender.prepared]
    result = {
        "machine": about,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "pinned": run.pin,
        "contenders": entrants(everyone, run.started_s),
        "failed": run.cells.failed,
        "goals": goals,
        "cells": run.cells.to_json(),
    }  # fmt: skip
    page = [
        f"# The engine's own cost, {where(about)}\n",
        f"{run.rounds} interleaved rounds of {run.seconds:g} s; median (lowest-highest)"
        f"{'; server and load each pinned to a core' * run.pin}.\n",
        tables,
        *left_out(run.cells.failed),
        *(f"- {c.name}: {c.settings}" for c in everyone),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
