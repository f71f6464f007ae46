"""One forecaster behind Maru, plain FastAPI (with ONNX Runtime, with pyfunc) and `mlflow models serve`.

    python -m bench.forecast [--quick] [--rounds 5] [--seconds 5]

Rounds are interleaved in rotated order; every answer is compared with the model's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import orjson

from bench.contenders import Contender
from bench.contenders.forecast import contenders, model_folder
from bench.http1 import http_request
from bench.page import by_rounds, entrants, goals_table, left_out, machine, where, write
from bench.rounds import Cells, Stage, closed_loop, rotated

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
            asked = partial(self.candles.requests, contender, server.port)
            outcome = closed_loop(server, asked, self.candles.check, clients, self.seconds)
        self.cells.keep(workload(clients), contender.title, round, self.rounds, outcome)


def workload(clients: int) -> str:
    return f"{clients} client{'s' * (clients > 1)}"


HEAD = ("", "requests/s", "CPU-ms a request", "p50 ms", "p99 ms", "RSS MiB", "others' cores")
FIGURES = ("requests_per_s", "cpu_ms_per_item", "p50_ms", "p99_ms", "rss_mib", "other_cores_busy")


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
    parser = by_rounds(__doc__, "forecast")
    given = parser.parse_args()
    about = machine()
    run = Run(given.rounds or (1 if given.quick else 5), given.seconds or (2.0 if given.quick else 5.0))
    run.everyone()
    everyone = [contender for contender in contenders() if contender.prepared]
    goals = goals_of(run.cells)
    result = {
        "machine": about,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "contenders": entrants(everyone),
        "failed": run.cells.failed,
        "goals": goals,
        "cells": run.cells.to_json(),
    }  # fmt: skip
    page = [
        f"# Forecasts, {where(about)}\n",
        f"{run.rounds} interleaved rounds of {run.seconds:g} s; median (lowest-highest).\n",
        goals_table(goals, "ratio") + "\n",
        run.cells.tables(map(workload, CLIENTS), [contender.title for contender in everyone], HEAD, FIGURES),
        *left_out(run.cells.failed),
        *(f"- {c.title}: {c.settings}" for c in everyone),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
