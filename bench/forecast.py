"""One forecaster behind Maru, plain FastAPI (with ONNX Runtime, with pyfunc) and `mlflow models serve`.

    python -m bench.forecast [--quick] [--rounds 5] [--seconds 5]

Rounds are interleaved in rotated order; every answer is compared with the model's own.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import orjson

from bench.contenders import Contender
from bench.contenders.forecast import contenders, model_folder
from bench.http1 import http_request
from bench.load import Plan, Requests, warmed
from bench.rounds import Cells, Stage, figures, machine, rotated, table, where, write

CLIENTS = (1, 16)
MLFLOW, FLOOR = "mlflow models serve", "FastAPI + onnxruntime"


class Candles:
    """Windows as the starter takes them, around a price that walks, and its forecast for each."""

    def __init__(self, count: int = 512) -> None:
        import onnxruntime

        rng = random.Random("candles")
        self.all = [self._window(rng) for _ in range(count)]
        session = onnxruntime.InferenceSession(model_folder() / "model.onnx", providers=["CPUExecutionProvider"])
        self._closes = session.run(None, {"x": np.asarray(self.all, np.float32)})[0].reshape(-1).tolist()

    @staticmethod
    def _window(rng: random.Random) -> list[list[float]]:
        rows, close = [], rng.uniform(20_000, 90_000)
        for _ in range(12):
            open_, close = close, close * (1 + rng.gauss(0, 0.005))
            candle = [open_, max(open_, close) * 1.001, min(open_, close) * 0.999, close, rng.uniform(1, 900)]
            rows.append([round(number, 4) for number in (*candle, *(rng.gauss(0, 0.01) for _ in range(13)))])
        return rows

    def check(self, number: int, body: bytes) -> bool:
        """Whether the body is the forecast for the window of request `number`, however it is wrapped."""
        try:
            found = orjson.loads(body)
            if isinstance(found, dict):
                found = found.get("pred_btc_close_next", found.get("predictions"))
            while not isinstance(found, float | int):
                found = next(iter(found.values())) if isinstance(found, dict) else found[0]
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
            return False
        expected: float = self._closes[number % len(self._closes)]
        return abs(found / expected - 1) < 1e-5

    def requests(self, contender: Contender, port: int, **more: object) -> Iterator[bytes]:
        """An endless series; `more` goes into each body."""

        def made(window: object) -> bytes:
            body = contender.body(window)
            assert isinstance(body, dict)
            return http_request("POST", f"127.0.0.1:{port}", contender.path, orjson.dumps({**body, **more}))

        return cycle([made(window) for window in self.all])


class Run:
    """One comparison."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.cells = Cells()
        self.candles = Candles()

    def everyone(self) -> None:
        with Stage(contenders(), self.cells.failed) as stage:
            for round in range(self.rounds):
                for clients in CLIENTS:
                    for contender in rotated(stage.standing, round):
                        self._measure(stage, contender, clients, round)

    def _measure(self, stage: Stage, contender: Contender, clients: int, round: int) -> None:
        with stage.turn(contender) as server:
            warm, measured = (Requests(self.candles.requests(contender, server.port)) for _ in range(2))
            plan = Plan(seconds=self.seconds, clients=clients)
            address = ("127.0.0.1", server.port)
            outcome = warmed(address, warm, measured, plan, 1.5, self.candles.check, server.pids)
        kept = figures(outcome, 1)
        self.cells.add(workload(clients), contender.title, round, kept)
        wrong = f"  ERRORS {outcome.errors} {outcome.statuses}" if outcome.errors or len(outcome.statuses) > 1 else ""
        print(
            f"  {round + 1}/{self.rounds} {workload(clients):<11} {contender.title:<24} "
            f"{kept['requests_per_s']:>7.0f}/s {kept['cpu_ms_per_item']:>7.3f} CPU-ms  p50 {kept['p50_ms']:.2f} ms"
            f"{wrong}",
            flush=True,
        )


def workload(clients: int) -> str:
    return f"{clients} client{'s' * (clients > 1)}"


HEAD = ("", "requests/s", "CPU-ms a request", "p50 ms", "p99 ms", "RSS MiB", "others' cores")
FIGURES = ("requests_per_s", "cpu_ms_per_item", "p50_ms", "p99_ms", "rss_mib", "other_cores_busy")


def tables_of(cells: Cells, titles: Sequence[str]) -> str:
    parts = []
    for clients in CLIENTS:
        rows = []
        for title in titles:
            spreads = [cells.spread(workload(clients), title, figure) for figure in FIGURES]
            if all(spreads):
                rows.append([title, *map(str, spreads)])
        parts.append(f"### {workload(clients)}\n\n{table(HEAD, rows)}\n")
    return "\n".join(parts)


def goals_of(cells: Cells) -> list[dict[str, Any]]:
    """Issue 3's goals."""
    goals: list[dict[str, Any]] = []
    for clients in CLIENTS:
        name = workload(clients)
        wanted: list[tuple[str, str, str, bool, float]] = [
            ("requests/s", "requests_per_s", MLFLOW, True, 3.0),
            ("p50", "p50_ms", MLFLOW, False, 1 / 3),
            ("requests/s", "requests_per_s", FLOOR, True, 1 / 1.3),
        ]
        for what, figure, other, more, bound in wanted:
            ratio = cells.ratio(name, figure, "Maru", other)
            if ratio:
                met = ratio.median >= bound if more else ratio.median <= bound
                sign = ">=" if more else "<="
                goals.append(
                    {
                        "what": f"{name}: {what}, Maru / {other}", "value": ratio.median, "low": ratio.low,
                        "high": ratio.high, "goal": f"{sign} {bound:.2f}", "met": met,
                    }
                )  # fmt: skip
    return goals


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 2 s: to see that it works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--name", default="forecast", help="of the files in bench/results")
    given = parser.parse_args()
    about = machine()
    run = Run(given.rounds or (1 if given.quick else 5), given.seconds or (2.0 if given.quick else 5.0))
    run.everyone()
    everyone = [contender for contender in contenders() if contender.prepared]
    goals = goals_of(run.cells)
    rows = []
    for g in goals:
        ratio = f"{g['value']:.2f} ({g['low']:.2f}-{g['high']:.2f})"
        rows.append([g["what"], ratio, g["goal"], "met" if g["met"] else "**missed**"])
    result = {
        "machine": about,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "contenders": {
            c.name: {"title": c.title, "settings": c.settings, "versions": c.versions()} for c in everyone
        },
        "failed": run.cells.failed,
        "goals": goals,
        "cells": run.cells.to_json(),
    }  # fmt: skip
    page = [
        f"# Forecasts, {where(about)}\n",
        f"{run.rounds} interleaved rounds of {run.seconds:g} s; median (lowest-highest).\n",
        table(["", "ratio", "goal", ""], rows) + "\n",
        tables_of(run.cells, [contender.title for contender in everyone]),
        *(f"- left out: {name}: `{why.strip().splitlines()[-1]}`" for name, why in run.cells.failed.items()),
        *(f"- {c.title}: {c.settings}" for c in everyone),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
