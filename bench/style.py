"""The style starter's texts behind Maru, plain FastAPI, LitServe and BentoML; thirteen at once; and ten times too many.

    python -m bench.style [--quick] [--rounds 5] [--seconds 5] [--only compare|queue|overload]

Rounds are interleaved in rotated order; every answer is compared with the model's own. For images see
`bench.style_image`.
"""

from __future__ import annotations

import dataclasses
import json
import random
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import orjson

from bench.contenders import Contender
from bench.contenders.style import KINDS, contenders, maru
from bench.http1 import http_request
from bench.outcome import Latency
from bench.overload import Target, goals_of, overload, page_of
from bench.page import by_rounds, entrants, goals_table, left_out, machine, where, write
from bench.rounds import Cells, Stage, closed_loop, rotated

CLIENTS = (1, 16)
SIZE = 10
SLOW_S = 0.05
ROUNDS_OF_THIRTEEN = 20

STYLES = (
    "모던한",
    "클래식한",
    "미니멀한",
    "북유럽풍",
    "빈티지",
    "인더스트리얼",
    "내추럴한",
    "한옥 느낌의",
    "평범한",
    "조용한",
)
THINGS = ("의자", "책상", "소파", "침대", "조명", "수납장", "식탁", "러그", "커튼", "선반")
PLACES = ("거실에 어울리는", "침실에 둘", "서재에 놓을", "주방의", "아이 방에 좋은", "현관 앞의")


class Texts:
    """Texts as people write them, and the matcher's score for each."""

    def __init__(self, count: int = 512) -> None:
        from maru.services.style.bundle import StyleBundle
        from maru.services.style.starter import starter

        rng = random.Random("texts")
        self.all = [
            f"{rng.choice(STYLES)} {rng.choice(PLACES)} {rng.choice(THINGS)} {rng.randrange(100)}번"
            for _ in range(count)
        ]
        self._scores = [reading.score for reading in StyleBundle.open(starter()).read_texts(self.all)]

    def asked(self, kind: str) -> list[object]:
        if kind == "infer":
            return list(self.all)
        return [self.all[start : start + SIZE] for start in range(0, len(self.all) - SIZE, SIZE)]

    def check(self, kind: str) -> Any:
        """Whether a body has the scores of request `number`, in order."""
        count = len(self.asked(kind))

        def checked(number: int, body: bytes) -> bool:
            try:
                told = orjson.loads(body)
                found = [told["score"]] if kind == "infer" else [result["score"] for result in told["results"]]
            except (ValueError, LookupError, TypeError):
                return False
            first = number % count * (1 if kind == "infer" else SIZE)
            expected = self._scores[first : first + (1 if kind == "infer" else SIZE)]
            return len(found) == len(expected) and all(
                abs(one - other) < 1e-4 for one, other in zip(found, expected, strict=True)
            )

        return checked

    def requests(self, contender: Contender, kind: str, port: int) -> Iterator[bytes]:
        """An endless series."""

        def made(asked: object) -> bytes:
            body = orjson.dumps(contender.body(asked))
            return http_request("POST", f"127.0.0.1:{port}", contender.path, body, contender.headers())

        return cycle([made(asked) for asked in self.asked(kind)])


class Run:
    """One comparison."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.cells = Cells()
        self.texts = Texts()

    def everyone(self) -> None:
        for kind in KINDS:
            with Stage(contenders(kind), self.cells.failed) as stage:
                for round in range(self.rounds):
                    for clients in CLIENTS:
                        for contender in rotated(stage.standing, round):
                            self._measure(stage, contender, kind, clients, round)

    def _measure(self, stage: Stage, contender: Contender, kind: str, clients: int, round: int) -> None:
        with stage.turn(contender) as server:
            asked = partial(self.texts.requests, contender, kind, server.port)
            outcome = closed_loop(server, asked, self.texts.check(kind), clients, self.seconds, 1.0)
        self.cells.keep(workload(kind, clients), contender.title, round, self.rounds, outcome)


def workload(kind: str, clients: int) -> str:
    path = "/infer" if kind == "infer" else f"/infer/batch of {SIZE}"
    return f"{path}, {clients} client{'s' * (clients > 1)}"


def thirteen() -> dict[str, Any]:
    """Twelve requests under way, and one more: how soon it is refused, with what, and whether it is taken when it comes
    back at the time it was told."""
    refusals, came_true, with_status = [], [], 0
    contender = maru("infer", queue=10, sleep_s=0.5)
    with contender.server() as server:
        head = contender.headers()
        for turn in range(ROUNDS_OF_THIRTEEN):
            clients = [_Client(server.port) for _ in range(13)]
            for n, client in enumerate(clients[:12]):
                client.send(http_request("POST", "127.0.0.1", "/infer", _text(f"{turn} {n}"), head))
            time.sleep(0.1)
            last = http_request("POST", "127.0.0.1", "/infer", _text(f"{turn} last"), head)
            began = time.perf_counter()
            clients[12].send(last)
            status, after, body = clients[12].answer()
            refusals.append(time.perf_counter() - began)
            assert status == 429, status
            with_status += set(json.loads(body)["details"]["queue_status"]) == {
                "active_requests", "queued_requests", "max_concurrent", "estimated_wait_time",
            }  # fmt: skip
            time.sleep(after)
            clients[12].send(last)
            came_true.append(clients[12].answer()[0] == 200)
            for client in clients[:12]:
                assert client.answer()[0] == 200
            for client in clients:
                client.socket.close()
    latency = Latency.of(refusals)
    return {
        "rounds": len(refusals),
        "refused_ms": dataclasses.asdict(latency),
        "refused_median_ms": round(1000 * statistics.median(refusals), 2),
        "with_queue_status": with_status / len(refusals),
        "retry_after_came_true": sum(came_true) / len(came_true),
    }


def _text(text: str) -> bytes:
    return orjson.dumps({"text": f"모던한 의자 {text}"})


class _Client:
    """One connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60)

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def answer(self) -> tuple[int, int, bytes]:
        """Status, Retry-After, body."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(fields["content-length"]):
            body += self.socket.recv(65536)
        return int(first.split()[1]), int(fields.get("retry-after", "0")), body


def slow(texts: Texts) -> Target:
    """The service as the document has it, two at a time and ten waiting, with a model of 50 ms."""
    contender = maru("infer", queue=10, sleep_s=SLOW_S)
    contender = dataclasses.replace(contender, name="maru-style-slow")
    check = texts.check("infer")
    return Target("style", contender, 8, lambda port, _: texts.requests(contender, "infer", port), lambda: check, 5.0)


HEAD = ("", "requests/s", "CPU-ms a request", "p50 ms", "p99 ms", "RSS MiB", "others' cores")
FIGURES = ("requests_per_s", "cpu_ms_per_item", "p50_ms", "p99_ms", "rss_mib", "other_cores_busy")


def comparison_goals(cells: Cells, titles: Sequence[str]) -> list[dict[str, Any]]:
    """Issue 6: at 16 clients ahead of all, p99 included."""
    goals = []
    for kind in KINDS:
        name = workload(kind, 16)
        for title in titles[1:]:
            for figure, words, more in (("requests_per_s", "requests/s", True), ("p99_ms", "p99", False)):
                ratio = cells.ratio(name, figure, titles[0], title)
                if ratio is None:
                    continue
                met = ratio.median > 1 if more else ratio.median < 1
                goals.append(
                    {
                        "what": f"{name}: {words}, Maru / {title}", "value": ratio.median, "low": ratio.low,
                        "high": ratio.high, "goal": "> 1" if more else "< 1", "met": met,
                    }
                )  # fmt: skip
    return goals


def queue_goals(queue: dict[str, Any]) -> list[dict[str, Any]]:
    refused = queue["refused_ms"]["p99"]
    return [
        {"what": "the 13th refused, p99 ms", "value": refused, "goal": "<= 20", "met": refused <= 20},
        {
            "what": "refusals with queue_status", "value": queue["with_queue_status"], "goal": "1",
            "met": queue["with_queue_status"] == 1,
        },
        {
            "what": "taken after Retry-After", "value": queue["retry_after_came_true"], "goal": "1",
            "met": queue["retry_after_came_true"] == 1,
        },
    ]  # fmt: skip


def main() -> None:
    """The command line above."""
    parser = by_rounds(__doc__, "style")
    parser.add_argument("--only", choices=["compare", "queue", "overload"])
    given = parser.parse_args()
    about = machine()
    run = Run(given.rounds or (1 if given.quick else 5), given.seconds or (2.0 if given.quick else 5.0))
    titles = [contender.title for contender in contenders("infer")]
    everyone = [contender for contender in contenders("infer") if contender.prepared]
    goals: list[dict[str, Any]] = []
    queue: dict[str, Any] | None = None
    overloaded: dict[str, Any] | None = None
    if given.only in (None, "compare"):
        run.everyone()
        goals += comparison_goals(run.cells, titles)
    if given.only in (None, "queue"):
        queue = thirteen()
        goals += queue_goals(queue)
    if given.only in (None, "overload"):
        overloaded = overload(slow(run.texts), 6.0 if given.quick else 30.0)
        goals += goals_of(overloaded)
    result = {
        "machine": about,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "contenders": entrants(everyone),
        "failed": run.cells.failed,
        "goals": goals,
        "queue": queue,
        "overload": overloaded,
        "cells": run.cells.to_json(),
    }  # fmt: skip
    workloads = [workload(kind, clients) for kind in KINDS for clients in CLIENTS]
    page = [
        f"# Style, {where(about)}\n",
        f"{run.rounds} interleaved rounds of {run.seconds:g} s; median (lowest-highest).\n",
        goals_table(goals, "", ".3g") + "\n",
        run.cells.tables(workloads, titles, HEAD, FIGURES) if run.cells.all else "",
        page_of(overloaded) if overloaded else "",
        *left_out(run.cells.failed),
        *(f"- {c.title}: {c.settings}" for c in everyone),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
