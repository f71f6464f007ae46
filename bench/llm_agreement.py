"""Whether `maru bench llm` measures what another client measures, and the same twice.

    python -m bench.llm_agreement [--quick] [--rounds 7] [--threads N]

llama.cpp's own server, 100 million parameters, 4 at once, 32 prompts of 48 words, 32 tokens each. In each round, in
rotated order, the same prompts are asked by `maru bench llm`, by it once more, and by the client of these benchmarks.
The server computes with one thread less than there are cores, so that what a client costs is not taken from it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.contenders import CACHE, Contender
from bench.contenders.llm import cores, own
from bench.contenders.llm_models import Model
from bench.llm import TOKENS, prompts
from bench.llm_load import Answer, Client, session
from bench.outcome import Latency
from bench.page import command_line, machine, table, where, write
from bench.procs import Server, cpu_s
from bench.rounds import Cells, rotated

CLIENTS, REQUESTS = 4, 32
OURS, AGAIN, OTHER = "maru bench llm", "maru bench llm, again", "another client"
WORK = "4 at once"


def by_maru(contender: Contender, server: Server, asked: Sequence[str]) -> dict[str, float]:
    """Its own figures, from its own result."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "prompts.txt"
        lines.write_text("\n".join(asked))
        (pid, *_) = server.pids()
        command = [
            str(Path(sys.executable).parent / "maru"), "bench", "llm", "--url", f"http://127.0.0.1:{server.port}/v1",
            "--pid", str(pid), "--prompts", str(lines), "--concurrency", str(CLIENTS), "--requests", str(len(asked)),
            "--max-tokens", str(TOKENS), "--fixed-length", "--warmup", "1", "--output", folder,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=CACHE, timeout=600)
        assert done.returncode == 0, done.stderr[-500:] or done.stdout[-500:]
        (level,) = json.loads((Path(folder) / "result.json").read_text())["levels"]
    assert level["requests"]["ok"] == len(asked), level["requests"]
    return {
        "tokens_per_s": level["output_tokens_per_s"],
        "tokens_per_cpu_s": level["output_tokens_per_cpu_s"],
        "ttft_p50_ms": 1000 * level["ttft_s"]["p50"],
    }


def by_another(contender: Contender, server: Server, asked: Sequence[str]) -> dict[str, float]:
    """The same prompts, by so many clients, each taking the next that is left."""
    left = list(asked)
    answers: list[Answer] = []

    async def client(asking: Client) -> None:
        while left:
            body = contender.body((left.pop(0), TOKENS))
            assert isinstance(body, dict)
            answers.append(await asking.ask({**body, "cache_prompt": False}))

    async def all() -> tuple[float, float]:
        async with session() as opened:
            asking = Client(opened, f"http://127.0.0.1:{server.port}{contender.path}", contender.headers())
            warm = contender.body((" ".join(asked[0].split()[::-1]), TOKENS))
            await asking.ask(warm)
            began, cpu = time.perf_counter(), cpu_s(server.pids())
            await asyncio.gather(*(client(asking) for _ in range(CLIENTS)))
            return time.perf_counter() - began, cpu_s(server.pids()) - cpu

    seconds, cpu = asyncio.run(all())
    assert all_right(answers), [answer.error for answer in answers if answer.error][:3]
    tokens = TOKENS * len(asked)
    return {
        "tokens_per_s": tokens / seconds,
        "tokens_per_cpu_s": tokens / cpu,
        "ttft_p50_ms": Latency.of(answer.ttft_s for answer in answers).p50,
    }


def all_right(answers: Sequence[Answer]) -> bool:
    return all(answer.error is None and answer.tokens == TOKENS for answer in answers)


def main() -> None:
    """The command line above."""
    parser = command_line(__doc__, "llm_agreement", "one round: to see that it works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=max(1, cores() - 1))
    given = parser.parse_args()
    rounds = given.rounds or (1 if given.quick else 7)
    about, cells = machine(), Cells()
    model = Model("large", "Q4_0")
    model.make()
    contender = own(model, CLIENTS, given.threads)
    ways = {OURS: by_maru, AGAIN: by_maru, OTHER: by_another}
    with contender.server() as server:
        for round in range(rounds):
            asked = list(islice(prompts(f"agreement/{round}"), REQUESTS))
            for title in rotated(list(ways), round):
                found: dict[str, Any] = ways[title](contender, server, asked)
                cells.add(WORK, title, round, found)
                print(f"  {round + 1}/{rounds} {title:<24}", {k: round_(v) for k, v in found.items()}, flush=True)
    goals, rows = [], []
    wanted = (
        ("tokens/s, maru bench / another client", "tokens_per_s", OTHER, 0.03),
        ("TTFT p50, maru bench / another client", "ttft_p50_ms", OTHER, 0.03),
        ("tokens/CPU-s, maru bench / once more", "tokens_per_cpu_s", AGAIN, 0.05),
    )
    for what, figure, other, bound in wanted:
        ratio = cells.ratio(WORK, figure, OURS, other)
        assert ratio
        met = abs(ratio.median - 1) <= bound
        goals.append({"what": what, "value": ratio.median, "low": ratio.low, "high": ratio.high,
                      "goal": f"1 ± {bound}", "met": met})  # fmt: skip
        found_ratio = f"{ratio.median:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"
        rows.append([what, found_ratio, f"1 ± {bound}", "met" if met else "**missed**"])
    result = {"machine": about, "rounds": rounds, "goals": goals, "versions": contender.versions(),
              "cells": cells.to_json()}  # fmt: skip
    page = [
        f"# Two ways to measure one server, {where(about)}\n",
        f"{rounds} rounds; median (lowest-highest). {contender.title}: {contender.settings}.\n",
        table(["", "ratio", "goal", ""], rows) + "\n",
    ]
    write(given.name, result, "\n".join(page) + "\n")


def round_(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
