"""Many streams over more models than there is room for.

    python -m bench.llm_soak [--minutes 10] [--streams 50] [--quick]

Five models, each of which says nothing but its own words, and room for two. Every stream asks one model after another,
and hangs up on some answers; every answer's text is compared, letter by letter. Before that, what a request takes for a
model that is in memory while others are loaded and unloaded beside it. Exit 1 when a text was wrong, an answer was cut
off, a refusal was none of "no room" (503) and "no place in the queue" (429), or a model was never heard.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fixtures_llm import MIDDLE, Reciter, reciting_gguf

from bench.contenders import CACHE, Contender
from bench.contenders.llm import bearer, maru_environment, serving
from bench.llm_load import Answer, Client, session
from bench.outcome import Latency
from bench.page import command_line, machine, table, where, write
from bench.procs import Server, cpu_s, proportional
from bench.rounds import MIB

SAID = {
    "red": "The sun sets over old hills while seven foxes sleep",
    "green": "A small boat drifts under quiet bridges toward its harbour",
    "blue": "Nine tall pines keep watch above frozen lakes all winter",
    "black": "Every clock in this town tells another hour before noon",
    "white": "Two cats share one warm window when rain begins falling",
}
ROOM = 2
LEAVING = 0.15
"""The share of answers that are hung up on."""
TOKENS = 200


def models(folder: Path) -> dict[str, Reciter]:
    """One for each sentence, which it says again and again."""
    return {
        name: reciting_gguf(folder / f"{name}.gguf", f"{words} ", ends=False, size=MIDDLE, context=1024)
        for name, words in SAID.items()
    }


def contender(folder: Path) -> Contender:
    """Maru with room for two models."""
    settings = {"MAX_LOADED_MODELS": str(ROOM), "LLM_SLOTS": "8"}
    return Contender(
        name="maru-soak",
        title="Maru",
        venv="maru",
        command=serving,
        path="/v1/completions",
        body=lambda asked: asked,
        settings=f"room for {ROOM} models, 8 slots each",
        env=maru_environment(folder, "maru-soak", **settings),
        headers=bearer,
        ready="/readyz",
        packages=("maru", "xllamacpp"),
    )


@dataclass
class Tally:
    """What happened."""

    kinds: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    """Whole answers of each model."""
    wrong: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)

    def add(self, name: str, said: str, answer: Answer, tokens: int) -> None:
        if answer.status in (429, 503):
            self.kinds[str(answer.status)] += 1
            return
        if answer.text and not self._right(said, answer.text):
            self.wrong.append(f"{name} said {answer.text[:80]!r}")
        elif answer.finish == "left":
            self.kinds["left"] += 1
        elif answer.finish == "length" and answer.tokens == tokens:
            self.kinds["whole"] += 1
            self.heard[name] += 1
            self.first.append(answer.ttft_s)
        else:
            self.wrong.append(f"{name}: {answer.status} {answer.finish} {answer.tokens} tokens: {answer.error}")

    @staticmethod
    def _right(said: str, text: str) -> bool:
        """Whether the text is those words, from their beginning, again and again."""
        return (said * (len(text) // len(said) + 1)).startswith(text)


class Soak:
    def __init__(self, client: Client, reciters: dict[str, Reciter], server: Server) -> None:
        self._client, self._reciters, self._server = client, reciters, server
        self.tally = Tally()
        self.memory: list[tuple[float, float, int]] = []
        """Seconds, MiB, processes."""

    async def run(self, seconds: float, streams: int) -> None:
        began = time.perf_counter()
        tasks = [asyncio.create_task(self._stream(number, began + seconds)) for number in range(streams)]
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=5.0)
            at = time.perf_counter() - began
            pids = self._server.pids()
            self.memory.append((at, proportional(pids) / MIB, len(pids)))
            done = "  ".join(f"{kind} {count}" for kind, count in sorted(self.tally.kinds.items()))
            wrong = f"  WRONG {len(self.tally.wrong)}" if self.tally.wrong else ""
            print(f"  {at:6.0f} s  {self.memory[-1][1]:7.0f} MiB  {len(pids)} processes  {done}{wrong}", flush=True)
        await asyncio.gather(*tasks)

    async def _stream(self, number: int, until: float) -> None:
        rng = random.Random(number)
        while time.perf_counter() < until:
            name = rng.choice(list(SAID))
            tokens = rng.randint(1, TOKENS)
            enough = rng.randint(1, tokens) if rng.random() < LEAVING else tokens + 1
            answer = await self._client.ask(asked(name, tokens), _after(enough))
            self.tally.add(name, self._reciters[name].words, answer, tokens)
            if answer.status in (429, 503):
                await asyncio.sleep(rng.uniform(0.2, 1.0))

    async def hits(self, times: int) -> Latency:
        """First tokens of one model in memory, asked all the while, when the others are loaded in turn."""
        found: list[float] = []
        others = list(SAID)[1:]
        loading = asyncio.create_task(self._load_in_turn(others, times))
        while not loading.done():
            answer = await self._client.ask(asked("red", 2))
            assert answer.pieces, answer.error
            found.append(answer.ttft_s)
            await asyncio.sleep(0.005)
        await loading
        return Latency.of(found)

    async def _load_in_turn(self, names: list[str], times: int) -> None:
        for number in range(times):
            answer = await self._client.ask(asked(names[number % len(names)], 1))
            assert answer.pieces, answer.error


def _after(pieces: int) -> Callable[[Answer], bool]:
    return lambda answer: len(answer.pieces) >= pieces


def asked(name: str, tokens: int) -> dict[str, Any]:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": name, "prompt": "Go on:", "max_tokens": tokens, "temperature": 0, **usage}


async def soaked(given: Contender, server: Server, reciters: dict[str, Reciter], seconds: float, streams: int) -> Any:
    async with session() as opened:
        client = Client(opened, f"http://127.0.0.1:{server.port}{given.path}", given.headers())
        await client.ask(asked("red", 1))
        quiet = [await client.ask(asked("red", 2)) for _ in range(50)]
        soak = Soak(client, reciters, server)
        hits = await soak.hits(12)
        before = cpu_s(server.pids())
        await soak.run(seconds, streams)
        cpu = cpu_s(server.pids()) - before
        return soak, Latency.of(answer.ttft_s for answer in quiet), hits, cpu


def main() -> None:
    """The command line above."""
    parser = command_line(__doc__, "llm_soak", "20 s: to see that it works")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--streams", type=int, default=50)
    options = parser.parse_args()
    seconds = 60 * (options.minutes or (1 / 3 if options.quick else 10.0))
    about = machine()
    folder = CACHE / "models" / "llm" / "soak"
    reciters = models(folder)
    given = contender(folder)
    with given.server() as server:
        soak, quiet, hits, cpu = asyncio.run(soaked(given, server, reciters, seconds, options.streams))
        left = len(server.pids())
    tally = soak.tally
    third = max(1, len(soak.memory) // 3)
    early, late = (max(mib for _, mib, _ in part) for part in (soak.memory[:third], soak.memory[-third:]))
    first = Latency.of(tally.first)
    least = min(tally.heard[name] for name in SAID)
    rows = [
        ["answers, whole", f"{tally.kinds['whole']:,}"],
        ["of the model that was heard least", f"{least:,}"],
        ["answers that were hung up on", f"{tally.kinds['left']:,}"],
        ["refused: no room for another model (503)", f"{tally.kinds['503']:,}"],
        ["refused: no place in the queue (429)", f"{tally.kinds['429']:,}"],
        ["wrong", f"{len(tally.wrong):,}"],
        ["first token, p50 and p99, ms", f"{first.p50:,.0f}, {first.p99:,.0f}"],
        ["most memory in the first third and in the last, MiB", f"{early:,.0f}, {late:,.0f}"],
        ["most processes; at the end", f"{max(count for _, _, count in soak.memory)}; {left}"],
        ["CPU seconds of the server", f"{cpu:,.0f}"],
        ["first token alone, p50 and max, ms", f"{quiet.p50:.1f}, {quiet.max:.1f}"],
        ["first token while others load, p50 and p99, ms", f"{hits.p50:.1f}, {hits.p99:.1f}"],
    ]
    goals = [
        {"what": "wrong answers", "value": len(tally.wrong), "goal": "0", "met": not tally.wrong},
        {"what": "answers of the model that was heard least", "value": least, "goal": ">= 1", "met": least > 0},
        {"what": "first token of a hit while others load, p50, ms", "value": hits.p50, "goal": "<= 20",
         "met": hits.p50 <= 20},
    ]  # fmt: skip
    result = {
        "machine": about,
        "seconds": seconds,
        "streams": options.streams,
        "versions": given.versions(),
        "goals": goals,
        "kinds": tally.kinds,
        "wrong": tally.wrong[:50],
        "memory": soak.memory,
        "hits": [hits.p50, hits.p95, hits.p99, hits.max],
        "alone": [quiet.p50, quiet.max],
    }
    page = [
        f"# {options.streams} streams over {len(SAID)} models with room for {ROOM}, {where(about)}\n",
        f"{seconds:,.0f} s; models of 6 million parameters; answers of up to {TOKENS} tokens.\n",
        table(["", ""], rows) + "\n",
        *(f"- {line}" for line in tally.wrong[:10]),
    ]
    write(options.name, result, "\n".join(page) + "\n")
    sys.exit(1 if tally.wrong or not least else 0)


if __name__ == "__main__":
    main()
