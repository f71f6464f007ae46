"""What a forecaster's callers notice of 200 reloads, and of a callback target that never answers.

    python -m bench.reload [--quick] [--reloads 200] [--seconds 60]

Reloads, spread over the time given: at 80% of the measured capacity, from one version to another and back, the
two with different known answers; every answer must be one version's and say which. Callbacks: at a steady rate,
first alone, then while as many other predictions name a callback target that accepts connections and says
nothing.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper, numpy_helper

from bench.contenders import CACHE, Contender
from bench.contenders.forecast import NAME, maru
from bench.http1 import http_request
from bench.load import Load, Plan, Requests
from bench.outcome import Outcome
from bench.page import command_line, goals_table, machine, table, where, write
from bench.procs import Server, resident
from bench.rounds import MIB

STEPS = {"1": 1000.0, "2": 2000.0}
"""What each version adds to the last close."""
ALIASES = ("staging", "next")
SILENT_PORT = 9199
POOL = 256
"""Connections, as a proxy keeps them. What finds none free waits, and its latency counts all the same: opening another
for each request that is late would measure how many connections a second the kernel makes."""
WINDOW = [[100.0] * 18 for _ in range(12)]


def graph(step: float) -> bytes:
    """y = the last close + step."""
    constants = [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in (("start", [11, 3]), ("end", [12, 4]), ("axes", [1, 2]), ("shape", [-1, 1]))
    ]
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "axes"], ["close"]),
        helper.make_node("Reshape", ["close", "shape"], ["flat"]),
        helper.make_node("Add", ["flat", "step"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12, 18])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [*constants, numpy_helper.from_array(np.array(step, np.float32), "step")],
    )
    return onnx.helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def registry(home: Path) -> None:
    """Version 1 is `staging`, version 2 `next`."""
    from maru.runtimes.registry.open import embedded
    from maru.runtimes.registry.publish import publish

    for alias, step in zip(ALIASES, STEPS.values(), strict=True):
        publish(
            embedded(home), NAME, graph(step), seq_len=12, n_features=18, metadata={}, params={}, metrics={},
            experiment="bench", alias=alias,
        )  # fmt: skip


class Answers:
    """Every answer is the forecast of the version that it names."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}

    def __call__(self, number: int, body: bytes) -> bool:
        answer = orjson.loads(body)
        version: str = answer["model_version"]
        self.versions[version] = self.versions.get(version, 0) + 1
        return bool(answer["pred_btc_close_next"] == WINDOW[-1][3] + STEPS[version])


def requests(port: int, **more: object) -> Iterator[bytes]:
    body = orjson.dumps({"X": WINDOW, **more})
    return cycle([http_request("POST", f"127.0.0.1:{port}", "/predict", body)])


def load(server: Server, plan: Plan, check: Answers) -> Outcome:
    return Load(("127.0.0.1", server.port), Requests(requests(server.port)), plan, check, server.pids).run()


def reload_many(port: int, count: int, every_s: float) -> None:
    """The command line of the process that reloads: prints how long each took, in ms."""
    for n in range(count):
        alias = ALIASES[(n + 1) % 2]
        request = Request(
            f"http://127.0.0.1:{port}/reload",
            orjson.dumps({"alias": alias}),
            {"Content-Type": "application/json"},
        )
        began = time.monotonic()
        with urlopen(request, timeout=60) as answer:
            answered = orjson.loads(answer.read())
        assert answered["model_alias"] == alias, answered
        took = time.monotonic() - began
        print(f"{1e3 * took:.1f}", flush=True)
        time.sleep(max(0.0, every_s - took))


def storm(contender: Contender, reloads: int, seconds: float) -> dict[str, Any]:
    """Before, during and after the reloads, at one rate."""
    with contender.server() as server:
        check = Answers()
        capacity = load(server, Plan(seconds=min(5.0, seconds / 4), clients=16), check).ok_per_s
        rate = 0.8 * capacity
        steady = Plan(seconds=seconds / 3, rate=rate, poisson=True, seed=1, max_connections=POOL)
        before = load(server, steady, check)
        settled = resident(server.pids())
        command = [sys.executable, "-m", "bench.reload", "--reload-port", str(server.port)]
        command += ["--reloads", str(reloads), "--seconds", str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reloading:
            during = load(server, replace(steady, seconds=seconds, seed=2), check)
            said, _ = reloading.communicate(timeout=120)
        took = [float(line) for line in said.split()]
        after = load(server, replace(steady, seconds=seconds / 6, seed=3), check)
        return {
            "capacity_per_s": capacity, "rate_per_s": rate, "reloads": len(took),
            "reload_ms_median": sorted(took)[len(took) // 2], "reload_s_total": sum(took) / 1e3,
            "before": before.to_json(), "during": during.to_json(), "after": after.to_json(),
            "versions": check.versions, "rss_before": settled, "rss_after": resident(server.pids()),
            "failed": during.errors | {s: n for s, n in during.statuses.items() if s != "200"},
        }  # fmt: skip


@contextmanager
def silence() -> Iterator[str]:
    """A callback target that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", SILENT_PORT), backlog=4096):
        yield f"http://127.0.0.1:{SILENT_PORT}/callback"


def hanging(contender: Contender, rate: float, seconds: float) -> dict[str, Any]:
    """Plain predictions alone, and beside as many whose callbacks hang."""
    with contender.server() as server, silence() as url:
        check = Answers()
        load(server, Plan(seconds=1.0, clients=4), check)
        plan = Plan(seconds=seconds, rate=rate, poisson=True, seed=4)
        results: dict[str, Any] = {"rate_per_s": rate}
        for name, more in (("beside_plain", {}), ("beside_hanging", {"callback_url": url})):
            body = orjson.dumps({"X": WINDOW, **more}).decode()
            command = [
                sys.executable, "-m", "bench.load", f"http://127.0.0.1:{server.port}/predict", "--body", body,
                "--rate", str(rate), "--poisson", "--seconds", str(seconds + 2),
            ]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as others:
                time.sleep(1.0)
                results[name] = load(server, plan, check).to_json()
                said, _ = others.communicate(timeout=120)
            results[f"others_{name}"] = beside = orjson.loads(said)
            if set(beside["statuses"]) != {"200"}:
                raise AssertionError(f"{name}: the others were answered {beside['statuses']}")
        return results


def page_of(stormed: dict[str, Any], hung: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    before, during = stormed["before"]["latency"], stormed["during"]["latency"]
    plain, beside = hung["beside_plain"]["latency"], hung["beside_hanging"]["latency"]
    growth = (stormed["rss_after"] - stormed["rss_before"]) / MIB
    wrong = during["count"] and sum(stormed["failed"].values())
    goals = [
        _goal("requests failed or wrong during the reloads", wrong, "0", wrong == 0),
        _goal("p99 during / before", during["p99"] / before["p99"], "<= 2", during["p99"] <= 2 * before["p99"]),
        _goal("RSS after - before, MiB", growth, "<= 10", growth <= 10),
        _goal(
            "p99 beside hanging callbacks / beside plain", beside["p99"] / plain["p99"], "<= 1.1",
            beside["p99"] <= 1.1 * plain["p99"],
        ),
    ]  # fmt: skip
    rows = [_row(name, stormed[name]) for name in ("before", "during", "after")]
    rows += [_row(name, hung[name]) for name in ("beside_plain", "beside_hanging", "others_beside_hanging")]
    page = (
        f"{stormed['reloads']} reloads (median {stormed['reload_ms_median']:.0f} ms, {stormed['reload_s_total']:.1f} s "
        f"in all) at {stormed['rate_per_s']:.0f} requests/s, 80% of {stormed['capacity_per_s']:.0f}; answers by "
        f"version: {stormed['versions']}. Callbacks: {hung['rate_per_s']:.0f} requests/s plain, and as many others.\n\n"
        f"{goals_table(goals, 'measured')}\n\n"
        f"{table(['', 'requests/s', 'p50 ms', 'p95 ms', 'p99 ms', 'max ms'], rows)}\n"
    )
    return page, goals


def _row(name: str, outcome: dict[str, Any]) -> list[str]:
    percentiles = (f"{outcome['latency'][p]:.2f}" for p in ("p50", "p95", "p99", "max"))
    return [name.replace("_", " "), f"{outcome['ok_per_s']:.0f}", *percentiles]


def _goal(what: str, value: float, goal: str, met: bool) -> dict[str, Any]:
    return {"what": what, "value": value, "goal": goal, "met": met}


def main() -> None:
    """The command line above."""
    parser = command_line(__doc__, "reload", "20 reloads: to see that it works")
    parser.add_argument("--reloads", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=float, default=100.0, help="of predictions beside callbacks")
    parser.add_argument("--reload-port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    reloads = given.reloads or (20 if given.quick else 200)
    seconds = given.seconds or (8.0 if given.quick else 60.0)
    if given.reload_port:
        reload_many(given.reload_port, reloads, seconds / reloads)
        return
    about = machine()
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-forecast-") as folder:
        registry(Path(folder))
        env = {"MARU_HOME": folder, "ALLOWED_FETCH_HOSTS": f"127.0.0.1:{SILENT_PORT}"}
        contender = replace(maru(), env={**maru().env, **env})
        stormed = storm(contender, reloads, seconds)
        hung = hanging(contender, given.rate, seconds / 3)
    page, goals = page_of(stormed, hung)
    result = {"machine": about, "goals": goals, "reloads": stormed, "callbacks": hung}
    write(given.name, result, f"# Reloads and callbacks, {where(about)}\n\n{page}")


if __name__ == "__main__":
    main()
