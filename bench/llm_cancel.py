"""What a slot does when its reader leaves, and what it remembers: Maru, and llama.cpp's own server.

    python -m bench.llm_cancel [--quick] [--times 10] [--threads N]

One slot, 100 million parameters. One client's answer is under way, another's waits; the first hangs up, while its text
comes, or while its prompt of 1,500 words is read. Measured is how long after that the other gets its first token. And a
prompt of 800 words is asked twice: how long the second first token takes, in parts of the first.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.contenders import BENCH, Contender
from bench.contenders.llm import cores, maru, own
from bench.contenders.llm_models import Model
from bench.llm_load import Answer, Client, session
from bench.page import command_line, machine, table, where, write
from bench.procs import Server
from bench.rounds import Cells

LONG, CACHED = 1500, 800
WRITING, READING, AGAIN = "left while its text came, ms", "left while its prompt was read, ms", "asked again, ratio"
GOALS = {WRITING: 250.0, READING: 1500.0, AGAIN: 0.05}
_WORDS = (BENCH / "words.txt").read_text().split()


class Slot:
    """One server with one slot, and its clients."""

    def __init__(self, client: Client, contender: Contender, seed: int) -> None:
        self._client, self._contender = client, contender
        self._rng = random.Random(seed)

    def _asked(self, words: int, tokens: int) -> object:
        return self._contender.body((" ".join(self._rng.choices(_WORDS, k=words)), tokens))

    async def writing(self) -> float:
        """Milliseconds from the leaving of one who had 8 tokens of 1,000 to the first token of the next."""

        return await self._left(8, 1000, asyncio.Event.wait)

    async def reading(self) -> float:
        """The same for one whose prompt was being read for 0.3 s."""

        async def begun(first: asyncio.Event) -> None:
            await asyncio.sleep(0.3)
            assert not first.is_set(), "the prompt was read too soon: make it longer"

        return await self._left(LONG, 16, begun)

    async def _left(self, words: int, tokens: int, until: Callable[[asyncio.Event], Awaitable[object]]) -> float:
        """`until`, which is given what is set at the eighth piece, says when to leave."""
        first = asyncio.Event()

        def seen(answer: Answer) -> bool:
            if len(answer.pieces) >= 8:
                first.set()
            return False

        leaver = asyncio.create_task(self._client.ask(self._asked(words, tokens), seen))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(self._client.ask(self._asked(4, 1)))
        await until(first)
        assert not waiting.done(), "the other did not have to wait"
        leaver.cancel()
        at = time.perf_counter()
        answer = await waiting
        assert answer.pieces, answer.error
        return 1000 * (answer.pieces[0] - at)

    async def again(self) -> float:
        """The second first token's time over the first's. Another prompt is not asked in between."""
        body = self._asked(CACHED, 4)
        first, second = await self._client.ask(body), await self._client.ask(body)
        assert first.pieces, first.error
        assert second.pieces, second.error
        return second.ttft_s / first.ttft_s


def measure(contender: Contender, server: Server, times: int, cells: Cells) -> None:
    async def all() -> None:
        async with session() as opened:
            client = Client(opened, f"http://127.0.0.1:{server.port}{contender.path}", contender.headers())
            slot = Slot(client, contender, seed=0)
            await slot.again()
            for number in range(times):
                for name, once in ((WRITING, slot.writing), (READING, slot.reading), (AGAIN, slot.again)):
                    found = await once()
                    cells.add(name, contender.title, number, {"found": found})
                    print(f"  {number + 1}/{times} {contender.title:<24} {name:<34} {found:>9.3f}", flush=True)

    asyncio.run(all())


def main() -> None:
    """The command line above."""
    parser = command_line(__doc__, "llm_cancel", "twice: to see that it works")
    parser.add_argument("--times", type=int)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", nargs="+", help="beginnings of contenders' names")
    given = parser.parse_args()
    times = given.times or (2 if given.quick else 10)
    about, cells = machine(), Cells()
    model = Model("large", "Q8_0")
    model.make()
    both = [maru(model, 1, given.threads), own(model, 1, given.threads)]
    everyone = [one for one in both if not given.only or one.name.startswith(tuple(given.only))]
    for contender in everyone:
        try:
            with contender.server() as server:
                measure(contender, server, times, cells)
        except (AssertionError, RuntimeError) as error:
            cells.failed[contender.name] = str(error)
            print(f"  {contender.title}: failed: {str(error)[-300:]}", flush=True)
    goals: list[dict[str, Any]] = []
    rows = []
    for name, bound in GOALS.items():
        found = {one.title: cells.spread(name, one.title, "found") for one in everyone}
        ours = found.get("Maru")
        if ours:
            goals.append({"what": name, "value": ours.median, "most": ours.high, "goal": f"<= {bound}",
                          "met": ours.median <= bound})  # fmt: skip
        met = "" if ours is None else "met" if ours.median <= bound else "**missed**"
        rows.append([name, *(str(spread or "–") for spread in found.values()), f"<= {bound:g}", met])
    head = ["", *(one.title for one in everyone), "goal", ""]
    result = {
        "machine": about,
        "times": times,
        "contenders": {one.name: {"settings": one.settings, "versions": one.versions()} for one in everyone},
        "failed": cells.failed,
        "goals": goals,
        "cells": cells.to_json(),
    }
    page = [
        f"# A slot whose reader leaves, {where(about)}\n",
        f"{times} times; median (lowest-highest). 100 million parameters, Q8_0, one slot.\n",
        table(head, rows) + "\n",
        *(f"- failed: {name}: `{why.strip().splitlines()[-1]}`" for name, why in cells.failed.items()),
        *(f"- {one.title}: {one.settings}" for one in everyone),
    ]
    write(given.name, result, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
