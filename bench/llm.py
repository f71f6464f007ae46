"""One generation model behind Maru, llama.cpp's own server, llama_cpp.server, and transformers' `generate`.

    python -m bench.llm [--quick] [--rounds 5] [--seconds 10] [--kind Q4_0] [--threads N] [--native LLAMA_SERVER]

100 million parameters with random weights, prompts of 48 words that never repeat, greedy answers of 32 tokens, 1 to
16 at once; and, for what Maru adds to the first token, a model of 7 million. Rounds are interleaved in rotated order,
and each answer's length is checked. Tokens per CPU second are those of the server with all its processes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders import BENCH, Contender
from bench.contenders.llm import contenders, cores, maru, own
from bench.contenders.llm_models import Model
from bench.llm_load import Cell, Client, measured, session
from bench.page import by_rounds, entrants, goals_table, left_out, machine, where, write
from bench.procs import Server
from bench.rounds import Cells, Spread, Stage, rotated

CLIENTS = (1, 2, 4, 8, 16)
SLOTS = 16
WORDS, TOKENS = 48, 32
MARU, OWN, NATIVE = "Maru", "llama.cpp's own server", "Maru, native llama-server"
PYTHON, TRANSFORMERS = "llama_cpp.server", "transformers generate, bfloat16"
FIRST_TOKEN = "first token, 7 million parameters"


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    cell: Cell


def prompts(stream: str) -> Iterator[str]:
    """Such that no two begin alike, so that no cache can help."""
    words = (BENCH / "words.txt").read_text().split()
    rng = random.Random(stream)
    while True:
        yield " ".join(rng.choices(words, k=WORDS))


class Run:
    """One comparison."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.cells = Cells()

    def everyone(self, entrants: Sequence[Contender], workloads: Sequence[Workload]) -> None:
        with Stage(entrants, self.cells.failed) as stage:
            for contender in stage.standing:
                with stage.turn(contender) as server:  # weights read, slots warm
                    self._figures(contender, server, Cell(2, TOKENS, 1.0), "warm")
            for round in range(self.rounds):
                for workload in workloads:
                    for contender in rotated(stage.standing, round):
                        with stage.turn(contender) as server:
                            stream = f"{contender.name}/{workload.name}/{round}"
                            kept = self._figures(contender, server, workload.cell, stream)
                        if kept["answers"]:
                            self.cells.add(workload.name, contender.title, round, kept)
                        else:
                            self.cells.failed[f"{contender.name}: {workload.name}"] = str(kept["errors"])
                        self._tell(round, workload, contender, kept)

    @staticmethod
    def _figures(contender: Contender, server: Server, cell: Cell, stream: str) -> dict[str, Any]:
        async def load() -> dict[str, Any]:
            async with session() as opened:
                client = Client(opened, f"http://127.0.0.1:{server.port}{contender.path}", contender.headers())
                return await measured(cell, client, prompts(stream), contender.body, server.pids)

        return asyncio.run(load())

    def _tell(self, round: int, workload: Workload, contender: Contender, kept: dict[str, Any]) -> None:
        wrong = f"  ERRORS {kept['errors']}" if kept["errors"] else ""
        print(
            f"  {round + 1}/{self.rounds} {workload.name:<34} {contender.title:<32}"
            f"{kept['tokens_per_s']:>7.1f} tok/s {kept['tokens_per_cpu_s']:>7.1f} tok/CPU-s  "
            f"TTFT {kept['ttft_p50_ms']:>8.1f} ms{wrong}",
            flush=True,
        )

    def added_ms(self) -> Spread | None:
        """What Maru's first token takes more than llama.cpp's own server's, round by round."""
        ours, theirs = (self.cells.values(FIRST_TOKEN, title, "ttft_p50_ms") for title in (MARU, OWN))
        return Spread.of([ours[n] - theirs[n] for n in ours if n in theirs])


def workload(clients: int) -> str:
    return f"{clients} at once"


HEAD = ("", "tokens/s", "tokens/CPU-s", "TTFT p50 ms", "TTFT p95 ms", "ITL p50 ms", "PSS MiB", "others' cores")
FIGURES = (
    "tokens_per_s", "tokens_per_cpu_s", "ttft_p50_ms", "ttft_p95_ms", "itl_p50_ms", "pss_mib", "other_cores_busy",
)  # fmt: skip


def goals_of(run: Run, native: bool) -> list[dict[str, Any]]:
    """Issue 5's goals."""
    goals: list[dict[str, Any]] = []

    def goal(what: str, found: Spread | None, bound: float, at_least: bool = True) -> None:
        if found is not None:
            met = found.median >= bound if at_least else found.median <= bound
            sign = ">=" if at_least else "<="
            goals.append(
                {"what": what, "value": found.median, "low": found.low, "high": found.high,
                 "goal": f"{sign} {bound:.2f}", "met": met}
            )  # fmt: skip

    def ratio(clients: int, one: str, other: str, bound: float) -> None:
        for figure, unit in (("tokens_per_s", "tokens/s"), ("tokens_per_cpu_s", "tokens/CPU-s")):
            found = run.cells.ratio(workload(clients), figure, one, other)
            goal(f"{workload(clients)}: {unit}, {one} / {other}", found, bound)

    for clients in CLIENTS:
        ratio(clients, MARU, OWN, 0.97)
    ratio(8, MARU, PYTHON, 1.0)
    ratio(8, MARU, TRANSFORMERS, 4.0)
    if native:
        ratio(8, NATIVE, PYTHON, 1.8)
    goal("added to the first token, p50, ms", run.added_ms(), 3.0, at_least=False)
    return goals


def main() -> None:
    """The command line above."""
    parser = by_rounds(__doc__, "llm", "one round of 2 s at 1 and 8: to see that it works")
    parser.add_argument("--kind", default="Q4_0", help="of the GGUF: Q4_0, Q8_0, F16")
    parser.add_argument("--threads", type=int, default=cores(), help="of every server; default: a thread a core")
    parser.add_argument("--native", type=Path, help="a llama-server compiled for this machine")
    parser.add_argument("--only", nargs="+", help="beginnings of contenders' names")
    given = parser.parse_args()
    about = machine()
    run = Run(given.rounds or (1 if given.quick else 5), given.seconds or (2.0 if given.quick else 10.0))
    large, small = Model("large", given.kind), Model("small", given.kind)
    for model in (large, small):
        model.make()

    def chosen(all: Sequence[Contender]) -> list[Contender]:
        return [c for c in all if not given.only or c.name.startswith(tuple(given.only))]

    clients = (1, 8) if given.quick else CLIENTS
    everyone = chosen(contenders(large, SLOTS, given.threads, given.native))
    workloads = [Workload(workload(count), Cell(count, TOKENS, run.seconds)) for count in clients]
    run.everyone(everyone, workloads)
    pair = chosen([maru(small, 1, given.threads), own(small, 1, given.threads)])
    first = [Workload(FIRST_TOKEN, Cell(1, 8, min(run.seconds, 4.0)))]
    run.everyone(pair, first)
    goals = goals_of(run, given.native is not None)
    prepared = [contender for contender in everyone if contender.prepared]
    result = {
        "machine": about,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "model": {"kind": given.kind, "prompt_words": WORDS, "tokens": TOKENS, "slots": SLOTS},
        "contenders": entrants(prepared),
        "failed": run.cells.failed,
        "goals": goals,
        "cells": run.cells.to_json(),
    }  # fmt: skip
    names = [workload.name for workload in (*workloads, *first)]
    page = [
        f"# Generation, {where(about)}\n",
        f"{run.rounds} interleaved rounds of {run.seconds:g} s; median (lowest-highest). 100 million parameters, "
        f"{given.kind}.\n",
        goals_table(goals, "found") + "\n",
        run.cells.tables(names, [contender.title for contender in prepared], HEAD, FIGURES),
        *left_out(run.cells.failed),
        *(f"- {c.title}: {c.settings}" for c in prepared),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
