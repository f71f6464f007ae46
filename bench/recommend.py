"""One recommender behind Maru and behind Flask with gunicorn, and what its own work costs.

    python -m bench.recommend [--quick] [--rounds 3] [--seconds 5] [--items 150000]

Rounds are interleaved in rotated order. An answer counts when it has 20 new items, for a batch when all have.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import orjson

from bench.contenders import CACHE, Contender
from bench.contenders.recommend import COMPILED, HOME, contenders, trained
from bench.http1 import http_request
from bench.page import by_rounds, entrants, left_out, machine, table, where, write
from bench.rounds import Cells, Stage, closed_loop, rotated

TOP = 20
BATCH = 100
OWN = 2_000
"""Sessions whose own work is measured."""


@dataclass(frozen=True, slots=True)
class Workload:
    """So many clients, each asking about so many sessions at a time."""

    name: str
    clients: int
    sessions: int

    @property
    def path(self) -> str:
        return "/recommend" if self.sessions == 1 else "/batch_recommend"


WORKLOADS = (
    Workload("1 client", 1, 1),
    Workload("16 clients", 16, 1),
    Workload("batches of 100, 1 client", 1, BATCH),
    Workload("batches of 100, 4 clients", 4, BATCH),
)


class Asking:
    """The requests of a workload, and whether an answer is one."""

    def __init__(self, sessions: list[dict[str, Any]], workload: Workload) -> None:
        self._workload = workload
        size = workload.sessions
        self._lots = [sessions[start : start + size] for start in range(0, len(sessions) - size + 1, size)]

    def requests(self, port: int) -> Iterator[bytes]:
        many = self._workload.sessions > 1
        bodies = [{"sessions": lot, "top_k": TOP} if many else {**lot[0], "top_k": TOP} for lot in self._lots]
        address = f"127.0.0.1:{port}"
        return cycle([http_request("POST", address, self._workload.path, orjson.dumps(body)) for body in bodies])

    def check(self, number: int, body: bytes) -> bool:
        lot = self._lots[number % len(self._lots)]
        answer = orjson.loads(body)
        answers = answer["results"] if len(lot) > 1 else [answer]
        return len(answers) == len(lot) and all(
            len(one["recommendations"]) == TOP
            and not {event["aid"] for event in session["events"]} & set(one["recommendations"])
            for one, session in zip(answers, lot, strict=True)
        )


class Run:
    """One comparison."""

    def __init__(self, rounds: int, seconds: float, sessions: list[dict[str, Any]]) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.cells = Cells()
        self._asking = {workload: Asking(sessions, workload) for workload in WORKLOADS}

    def everyone(self) -> None:
        with Stage(contenders(), self.cells.failed) as stage:
            for round in range(self.rounds):
                for workload in WORKLOADS:
                    for contender in rotated(stage.standing, round):
                        self._measure(stage, contender, workload, round)

    def _measure(self, stage: Stage, contender: Contender, workload: Workload, round: int) -> None:
        asking = self._asking[workload]
        with stage.turn(contender) as server:
            asked = partial(asking.requests, server.port)
            outcome = closed_loop(server, asked, asking.check, workload.clients, self.seconds)
        self.cells.keep(workload.name, contender.title, round, self.rounds, outcome, workload.sessions)


def own_work(sessions: list[dict[str, Any]]) -> dict[str, float]:
    """CPU and wall, in ms, of one session's recommendation, by itself on one core: p50 and p99."""
    from maru.services.recommend.bundles import Bundles, bundles_folder
    from maru.services.recommend.core.compiling import keep_compiled_in

    keep_compiled_in(COMPILED)
    from maru.services.recommend.model import RecommenderModel, limits
    from maru.services.recommend.queries import ask_for, choice
    from maru.services.recommend.schemas import RecommendRequest

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    bundles = Bundles(bundles_folder(HOME))
    began = time.monotonic()
    bundle = bundles.open(bundles.current() or "")
    model = RecommenderModel.spec("recommend", bundle, limits(30.0), COMPILED).load()
    model.warm()
    ready = time.monotonic() - began
    cpu, wall = [], []
    for session in (sessions * (OWN // len(sessions) + 2))[: OWN + 200]:
        body = orjson.dumps({**session, "top_k": TOP})
        t, c = time.perf_counter(), time.thread_time()
        request = RecommendRequest.model_validate_json(body)
        (prepared,) = model.prepare([ask_for(choice(request), request.events)])
        assert not isinstance(prepared, Exception)
        model.predict([prepared.value])
        cpu.append(time.thread_time() - c)
        wall.append(time.perf_counter() - t)
    told = {"open_and_warm_s": ready}
    for name, seconds in (("cpu", cpu[200:]), ("wall", wall[200:])):
        told |= {f"{name}_p{part}_ms": 1e3 * float(np.percentile(seconds, part)) for part in (50, 99)}
    return told


HEAD = ("", "sessions/s", "CPU-ms a session", "p50 ms", "p99 ms", "PSS MiB", "others' cores")
FIGURES = ("items_per_s", "cpu_ms_per_item", "p50_ms", "p99_ms", "pss_mib", "other_cores_busy")


def page_of(run: Run, own: dict[str, float], titles: list[str]) -> tuple[str, list[dict[str, Any]]]:
    goals = [
        _goal("own work, CPU p50, ms", own["cpu_p50_ms"], "<= 2.5", own["cpu_p50_ms"] <= 2.5),
        _goal("own work, CPU p99, ms", own["cpu_p99_ms"], "<= 5", own["cpu_p99_ms"] <= 5),
        _goal("open and warm, s", own["open_and_warm_s"], "<= 3", own["open_and_warm_s"] <= 3),
    ]
    for workload in WORKLOADS:
        for other in titles[1:]:
            if ratio := run.cells.ratio(workload.name, "items_per_s", "Maru", other):
                what = f"{workload.name}: sessions/s, Maru / {other}"
                goals.append(_goal(what, ratio.median, ">= 3", ratio.median >= 3, str(ratio)))
    tables = run.cells.tables([workload.name for workload in WORKLOADS], titles, HEAD, FIGURES)
    told = [[g["what"], g["shown"], g["goal"], "met" if g["met"] else "**missed**"] for g in goals]
    return f"{table(['', 'measured', 'goal', ''], told)}\n\n" + tables, goals


def _goal(what: str, value: float, goal: str, met: bool, shown: str | None = None) -> dict[str, Any]:
    return {"what": what, "value": value, "goal": goal, "met": met, "shown": shown or f"{value:.2f}"}


def main() -> None:
    """The command line above."""
    parser = by_rounds(__doc__, "recommend", "one round of 2 s and a shop of 3,000 items")
    parser.add_argument("--items", type=int, help="of the simulated shop")
    parser.add_argument("--train", action="store_true", help="only make the bundle")
    given = parser.parse_args()
    items = given.items or (3_000 if given.quick else 150_000)
    CACHE.mkdir(exist_ok=True)
    HOME.mkdir(parents=True, exist_ok=True)
    sessions = trained(items)
    if given.train:
        return
    about = machine()
    run = Run(given.rounds or (1 if given.quick else 3), given.seconds or (2.0 if given.quick else 5.0), sessions)
    run.everyone()
    own = own_work(sessions)
    everyone = [contender for contender in contenders() if contender.prepared]
    page, goals = page_of(run, own, [contender.title for contender in everyone])
    result = {
        "machine": about, "rounds": run.rounds, "seconds": run.seconds, "items": items, "own": own,
        "contenders": entrants(everyone),
        "failed": run.cells.failed, "goals": goals, "cells": run.cells.to_json(),
    }  # fmt: skip
    lines = [
        f"# Recommendations, {where(about)}\n",
        f"A simulated shop of {items:,} items; {run.rounds} interleaved rounds of {run.seconds:g} s; median "
        "(lowest-highest).\n",
        page,
        *left_out(run.cells.failed),
        *(f"- {c.title}: {c.settings}" for c in everyone),
    ]
    write(given.name, result, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
