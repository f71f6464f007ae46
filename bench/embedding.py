"""Maru's embedding service beside its in-process limit, Infinity, and FastAPI with sentence-transformers.

    python -m bench.embedding [--quick] [--rounds 5] [--seconds 6] [--only NAME ...]

One run, side by side: rounds interleaved in rotated order, every text new (so that no result cache can help;
Maru's is on), every answer's shape checked, a sample compared with sentence-transformers' own vectors.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import orjson

from bench.contenders import BENCH, CACHE, HERE, MODEL, VENVS, Contender
from bench.contenders.embedding import CONTENDERS, INFINITY
from bench.load import Plan, Requests, http_request, warmed
from bench.procs import Server
from bench.rounds import Cells, Spread, Stage, figures, machine, rotated, table, where, write
from bench.texts import Kind, texts

DIMENSION = 384
Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Workload:
    """`clients` that each keep one request of `size` texts in flight."""

    name: str
    kind: Kind
    clients: int
    size: int
    encoding: Literal["float", "base64"] = "float"

    def stream(self, round: int) -> str:
        return f"{self.name}/{round}"


WORKLOADS = (
    Workload("short x1, 16 clients", "short", 16, 1),
    Workload("mixed x1, 16 clients", "mixed", 16, 1),
    Workload("short x32, 4 clients", "short", 4, 32),
    Workload("mixed x32, 4 clients", "mixed", 4, 32),
    Workload("short x32 base64, 4 clients", "short", 4, 32, "base64"),
)
LIMITS = ("limit-int8", "limit-fp32")
TITLES = {
    **{contender.name: contender.title for contender in CONTENDERS},
    "limit-int8": "in-process limit, int8",
    "limit-fp32": "in-process limit, fp32",
}


def vectors(body: bytes) -> Vectors:
    """The vectors in an answer, [n, dimension]."""
    found = [entry["embedding"] for entry in orjson.loads(body)["data"]]
    if isinstance(found[0], str):
        return np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in found])
    return np.asarray(found, np.float32)


class VectorCheck:
    """Every answer has `size` vectors of the right length.

    The first is read whole and its commas counted. Others with as many commas have its shape; the
    rest are read whole too.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._commas = -1

    def __call__(self, number: int, body: bytes) -> bool:
        commas = body.count(b",")
        if commas == self._commas and commas > DIMENSION:
            return True
        try:
            found = vectors(body)
        except (KeyError, ValueError, TypeError, IndexError):
            return False
        right = bool(found.shape == (self._size, DIMENSION))
        if right and not np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3):
            return False
        self._commas = commas if right else -1
        return right


def requests(contender: Contender, port: int, workload: Workload, stream: str) -> Iterator[bytes]:
    """The workload in this contender's words."""
    source = texts(workload.kind, stream)
    host, headers = f"127.0.0.1:{port}", contender.headers()
    while True:
        asked = next(source) if workload.size == 1 else list(islice(source, workload.size))
        body = contender.body(asked)
        assert isinstance(body, dict)
        yield http_request(
            "POST",
            host,
            contender.path,
            orjson.dumps({**body, "encoding_format": workload.encoding}),
            headers,
        )


Sample = tuple[Workload, int, int]
"""A request: of which workload, in which round, the how manieth."""


class Run:
    """One comparison."""

    def __init__(self, rounds: int, seconds: float, warm_s: float) -> None:
        self.rounds, self.seconds, self.warm_s = rounds, seconds, warm_s
        self.cells = Cells()
        self.samples: dict[tuple[str, Sample], Vectors] = {}
        """What each contender answered to some requests."""

    def measure(self, contender: Contender, server: Server, workload: Workload, round: int) -> None:
        """One cell of a server."""
        single = workload.size == 1
        plan = Plan(
            seconds=self.seconds,
            clients=workload.clients,
            min_answers=4 * workload.clients,
            max_seconds=max(30.0, 4 * self.seconds),
            timeout_s=120.0,
            drain_s=120.0,
            sample_every=10 if single else 1,
            sample_max=12 if single else 2,
        )
        stream = workload.stream(round)
        outcome = warmed(
            ("127.0.0.1", server.port),
            Requests(requests(contender, server.port, workload, f"warm/{stream}")),
            Requests(requests(contender, server.port, workload, stream)),
            plan,
            self.warm_s,
            VectorCheck(workload.size),
            server.pids,
        )
        for number, body in outcome.samples:
            self.samples[contender.name, (workload, round, number)] = vectors(body)
        self._keep(contender.name, workload, round, figures(outcome, workload.size))

    def limit(self, name: str, workload: Workload, round: int) -> None:
        """One cell of the in-process limit."""
        command = [
            sys.executable, "-m", "bench.limit", name.removeprefix("limit-"), workload.kind,
            "--inflight", str(workload.clients * workload.size), "--seconds", str(self.seconds),
            "--stream", workload.stream(round),
        ]  # fmt: skip
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCH.parent)
        self._keep(name, workload, round, json.loads(answer.stdout))

    def _keep(self, name: str, workload: Workload, round: int, kept: dict[str, Any]) -> None:
        self.cells.add(workload.name, name, round, kept)
        wrong = f"  ERRORS {kept['errors']}" if kept.get("errors") else ""
        print(
            f"  {round + 1}/{self.rounds} {workload.name:<28} {TITLES[name]:<32}"
            f"{kept['items_per_s']:>8.1f} texts/s {kept['cpu_ms_per_item']:>7.2f} CPU-ms{wrong}",
            flush=True,
        )

    def everyone(
        self, contenders: Sequence[Contender], workloads: Sequence[Workload], limits: Sequence[str]
    ) -> dict[str, float]:
        """All cells. How long each server took to start, in seconds."""
        with Stage(contenders, self.cells.failed) as stage:
            for round in range(self.rounds):
                for workload in workloads:
                    entrants: list[Contender | str] = [*stage.standing, *limits]
                    for entrant in rotated(entrants, round):
                        self._turn(stage, entrant, workload, round)
            return stage.started_s

    def _turn(self, stage: Stage, entrant: Contender | str, workload: Workload, round: int) -> None:
        try:
            if isinstance(entrant, str):
                self.limit(entrant, workload, round)
            elif workload.encoding == "float" or entrant.venv != "sentence":  # which knows no base64
                with stage.turn(entrant) as server:
                    self.measure(entrant, server, workload, round)
        except (AssertionError, RuntimeError, subprocess.CalledProcessError) as error:
            name = entrant if isinstance(entrant, str) else entrant.name
            said = getattr(error, "stderr", None) or str(error)
            self.cells.failed[f"{name}: {workload.name}"] = said[-500:]
            print(f"  {name}: {workload.name}: failed: {said[-300:]}", flush=True)

    def agreement(self) -> dict[str, dict[str, float]]:
        """Cosines of the sampled vectors with sentence-transformers' own in fp32, by contender."""
        asked = sorted({sample for _, sample in self.samples}, key=lambda s: (s[0].name, s[1], s[2]))
        if not asked or not (VENVS / "sentence/bin/python").exists():
            return {}
        wanted = {sample: _texts_of(sample) for sample in asked}
        expected = _reference([text for sample in asked for text in wanted[sample]])
        starts = dict(zip(asked, np.cumsum([0] + [len(wanted[s]) for s in asked])[:-1].tolist(), strict=True))
        cosines: dict[str, list[Vectors]] = {}
        for (name, sample), found in self.samples.items():
            right = expected[starts[sample] : starts[sample] + len(found)]
            cosines.setdefault(name, []).append((found * right).sum(1))
        return {name: _summary(np.concatenate(values)) for name, values in cosines.items()}


def _summary(cosines: Vectors) -> dict[str, float]:
    return {"mean": float(cosines.mean()), "least": float(cosines.min()), "vectors": len(cosines)}


def _texts_of(sample: Sample) -> list[str]:
    workload, round, number = sample
    first = number * workload.size
    return list(islice(texts(workload.kind, workload.stream(round)), first, first + workload.size))


def _reference(asked: list[str]) -> Vectors:
    """sentence-transformers' vectors, computed in its own environment."""
    target = CACHE / "reference.npy"
    command = [VENVS / "sentence/bin/python", HERE / "reference.py", MODEL, target]
    subprocess.run(command, input=json.dumps(asked), text=True, check=True, capture_output=True)
    found: Vectors = np.load(target)
    return found


class Report:
    """The tables."""

    def __init__(self, cells: Cells, agreement: dict[str, dict[str, float]], names: Sequence[str]) -> None:
        self._cells, self._agreement, self._names = cells, agreement, names

    def workload(self, workload: Workload) -> str:
        rows = []
        for name in self._names:
            rate = self._cells.spread(workload.name, name, "items_per_s")
            if rate is None:
                continue
            rows.append(
                [TITLES[name], str(rate), *(self._figure(workload, name, f) for f in FIGURES.values())]
            )
        return f"### {workload.name}\n\n{table(['', 'texts/s', *FIGURES], rows)}\n"

    def _figure(self, workload: Workload, name: str, figure: str) -> str:
        spread = self._cells.spread(workload.name, name, figure)
        return (
            ""
            if spread is None
            else f"{spread.median:,.2f}"
            if spread.median < 100
            else f"{spread.median:,.0f}"
        )

    def agreement(self) -> str:
        rows = [
            [TITLES[name], f"{found['mean']:.6f}", f"{found['least']:.6f}", f"{found['vectors']:.0f}"]
            for name, found in sorted(self._agreement.items())
        ]
        return table(["cosine with sentence-transformers fp32", "mean", "least", "vectors"], rows)

    def goals(self) -> list[dict[str, Any]]:
        """What issue 2 asked for, and what came."""
        found = []
        for workload in WORKLOADS:
            for precision in ("int8", "fp32"):
                mine, single = f"maru-{precision}", workload.size == 1
                found.append(self._goal(workload, mine, f"limit-{precision}", 0.85 if single else 0.95))
                for among in ("the same two engines as the issue", "the best of all four"):
                    names = [c.name for c in INFINITY if "all" in among or c.precision == "fp32"]
                    best = self._best(workload, names)
                    if best:
                        aim = _AIMS.get(workload.name) if precision == "int8" else None
                        found.append(self._goal(workload, mine, best, aim))
        return [goal for goal in found if goal]

    def _best(self, workload: Workload, names: Sequence[str]) -> str | None:
        rates = {name: self._cells.spread(workload.name, name, "items_per_s") for name in names}
        known = {name: rate.median for name, rate in rates.items() if rate}
        return max(known, key=lambda name: known[name]) if known else None

    def _goal(self, workload: Workload, one: str, other: str, aim: float | None) -> dict[str, Any]:
        ratio = self._cells.ratio(workload.name, "items_per_s", one, other)
        cost = self._cells.ratio(workload.name, "cpu_ms_per_item", one, other)
        if ratio is None or cost is None:
            return {}
        met = None if aim is None else ratio.median >= aim
        return {
            "workload": workload.name, "one": one, "other": other, "ratio": ratio.median, "low": ratio.low,
            "high": ratio.high, "cpu_ratio": cost.median, "goal": aim, "met": met,
        }  # fmt: skip


FIGURES = {
    "CPU-ms a text": "cpu_ms_per_item",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "RSS MiB": "rss_mib",
    "PSS MiB": "pss_mib",
    "others' cores": "other_cores_busy",
}
# of Maru as it ships (int8) over Infinity's better engine; set from a prototype, before Infinity's int8 was measured
_AIMS = {WORKLOADS[0].name: 2.5, WORKLOADS[1].name: 4.5, WORKLOADS[3].name: 7.0}


def goals_table(goals: Sequence[dict[str, Any]]) -> str:
    """The goals as Markdown, met or not; equal lines once."""
    rows = []
    for goal in goals:
        verdict = {None: "", True: "met", False: "**missed**"}[goal["met"]]
        spread = Spread(goal["ratio"], goal["low"], goal["high"])
        aim = "" if goal["goal"] is None else f">= {goal['goal']}"
        ratio = [str(spread), f"{goal['cpu_ratio']:.2f}", aim, verdict]
        row = [f"{goal['workload']}: {TITLES[goal['one']]} / {TITLES[goal['other']]}", *ratio]
        if row not in rows:
            rows.append(row)
    return table(["texts/s, ratio", "median (low-high)", "CPU-ms a text, ratio", "goal", ""], rows)


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of 2 s: to see that it works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--only", nargs="+", help="names of contenders (and limit-int8, limit-fp32)")
    parser.add_argument("--name", default="embedding", help="of the files in bench/results")
    given = parser.parse_args()
    run = Run(given.rounds or (1 if given.quick else 5), given.seconds or (2.0 if given.quick else 6.0), 1.5)
    chosen = [c for c in CONTENDERS if not given.only or c.name in given.only]
    limits = [name for name in LIMITS if not given.only or name in given.only]
    workloads = WORKLOADS[:4] if given.quick else WORKLOADS
    about: dict[str, Any] = {
        "machine": machine(),
        "rounds": run.rounds,
        "seconds": run.seconds,
        "warm_up_s": run.warm_s,
    }
    started = run.everyone(chosen, workloads, limits)
    agreement = run.agreement()
    names = [*(c.name for c in chosen if c.name.startswith("maru")), *limits]
    names += [c.name for c in chosen if c.name not in names]
    report = Report(run.cells, agreement, names)
    goals = report.goals()
    prepared = {c.name: c for c in chosen if c.prepared}
    result = {
        **about,
        "contenders": {
            name: {
                "title": c.title,
                "settings": c.settings,
                "versions": c.versions(),
                "started_s": started.get(name),
            }
            for name, c in prepared.items()
        },
        "failed": run.cells.failed,
        "goals": goals,
        "cosines": agreement,
        "cells": run.cells.to_json(),
    }
    page = [
        f"# Embeddings, {where(about['machine'])}\n",
        f"{run.rounds} interleaved rounds of {run.seconds:g} s; median (lowest-highest).\n",
        goals_table(goals) + "\n",
        *(report.workload(workload) for workload in workloads),
        report.agreement() + "\n",
        *(f"- left out: {name}: `{why.strip().splitlines()[-1]}`" for name, why in run.cells.failed.items()),
        *(f"- {c.title}: {c.settings}" for c in prepared.values()),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
