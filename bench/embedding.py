"""Maru's embedding service beside its in-process limit, Infinity, and FastAPI with sentence-transformers.

    python -m bench.embedding [--quick] [--rounds 5] [--seconds 6] [--only NAME ...]

One run, side by side: rounds interleaved in rotated order, every text new (so that no result cache can help;
Maru's is on), every answer's shape checked, a sample compared with sentence-transformers' own vectors.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from bench.contenders import BENCH, CACHE, HERE, MODEL, VENVS, Contender
from bench.contenders.embedding import CONTENDERS
from bench.embedding_load import WORKLOADS, VectorCheck, Vectors, Workload, requests, vectors
from bench.embedding_report import LIMITS, TITLES, Report, goals_table
from bench.load import Plan, Requests, warmed
from bench.page import by_rounds, entrants, left_out, machine, where, write
from bench.procs import Server
from bench.rounds import Cells, Stage, figures, rotated
from bench.texts import texts

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


def main() -> None:
    """The command line above."""
    parser = by_rounds(__doc__, "embedding")
    parser.add_argument("--only", nargs="+", help="names of contenders (and limit-int8, limit-fp32)")
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
    prepared = [c for c in chosen if c.prepared]
    result = {
        **about,
        "contenders": entrants(prepared, started),
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
        *left_out(run.cells.failed),
        *(f"- {c.title}: {c.settings}" for c in prepared),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
