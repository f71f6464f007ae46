"""Asks, at the pace of one level, and writes down what came."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence

from maru.engine.errors import EngineError, Refused
from maru.http.problem import Problem
from maru.runtimes.generation.types import Prompt
from maru.services.llm.benchmarks.courtesy import Courtesy
from maru.services.llm.benchmarks.plan import Level
from maru.services.llm.benchmarks.records import CpuClock, Record, Window
from maru.services.llm.benchmarks.source import Source

MOST_ON_THE_WAY = 1024
"""In an open loop that says nothing of it."""

NO_TIME_S = 0.01
"""What a moment without anybody else may take."""


class SourceError(Exception):
    """A source could not answer. The message is a short word for what went wrong, and quotes nobody."""


class Load:
    """One level against one source. `tell` is called after each answer; a Load is run once.

    Latency is counted from the moment at which a request was due, so a stall is charged to every request that it
    delayed. People come first, as `courtesy` says.
    """

    def __init__(
        self,
        source: Source,
        prompts: Sequence[Prompt],
        level: Level,
        courtesy: Courtesy,
        *,
        seed: int = 0,
        cpu: CpuClock = lambda: None,
        tell: Callable[[Load], None] = lambda load: None,
    ) -> None:
        self._source = source
        self._prompts = prompts
        self._courtesy = courtesy
        self._seed = seed
        self._cpu = cpu
        self._tell = tell
        self.level = level
        self.records: list[Record] = []
        self.on_the_way = 0
        self._began = 0.0
        self._yielded = 0
        self._yielded_s = 0.0
        self._cpu_s: float | None = None

    async def run(self) -> Window:
        """Ask all of it. A request that fails is a record; what is wrong with the benchmark itself is raised."""
        await self._courtesy.quiet()
        before = await asyncio.to_thread(self._cpu)
        self._began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                if self.level.rate is None:
                    numbers = iter(range(self.level.requests))
                    for _ in range(min(self.level.concurrency or 1, self.level.requests)):
                        group.create_task(self._client(numbers))
                else:
                    await self._arrive(group)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        after = await asyncio.to_thread(self._cpu)
        if before is not None and after is not None:
            self._cpu_s = after - before
        return self.window()

    def window(self) -> Window:
        """What was measured until now. What it cost is known in the end."""
        last = max((record.ended or 0.0 for record in self.records), default=0.0)
        return Window(
            self.level,
            sorted(self.records, key=lambda record: record.number),
            max(0.0, last - self._yielded_s),
            self._cpu_s,
            self._yielded,
            self._yielded_s,
        )

    def elapsed_s(self) -> float:
        """Seconds since it began, without those in which it stood aside."""
        return self._now() - self._yielded_s

    def _now(self) -> float:
        return time.perf_counter() - self._began

    async def _client(self, numbers: Iterator[int]) -> None:
        """One of a closed loop: its next request is due when it has the answer to the last."""
        for number in numbers:
            await self._asked(number, self._now())

    async def _arrive(self, group: asyncio.TaskGroup) -> None:
        """All of an open loop, each when it is due."""
        places = asyncio.Semaphore(self.level.concurrency or MOST_ON_THE_WAY)
        for number, due in enumerate(self._dues()):
            while True:
                if (wait := due + self._yielded_s - self._now()) > 0:
                    await asyncio.sleep(wait)
                elif not await self._stood_aside():
                    break
            group.create_task(self._arrived(number, due + self._yielded_s, places))

    async def _arrived(self, number: int, intended: float, places: asyncio.Semaphore) -> None:
        async with places:
            await self._asked(number, intended)

    def _dues(self) -> Iterator[float]:
        rng, due, rate = random.Random(self._seed), 0.0, self.level.rate or 1.0  # noqa: S311
        for _ in range(self.level.requests):
            yield due
            due += rng.expovariate(rate) if self.level.arrivals == "poisson" else 1 / rate

    async def _asked(self, number: int, intended: float) -> None:
        """Ask until it was not broken off for somebody else; it is due again when they are done."""
        while True:
            if await self._stood_aside():
                intended = self._now()
            if await self._ask(number, intended):
                return

    async def _stood_aside(self) -> bool:
        """Wait for others to be done; whether there were any. Where several wait together the time counts once."""
        began, before = self._now(), self._yielded_s
        await self._courtesy.quiet()
        waited = self._now() - began
        if waited < NO_TIME_S:
            return False
        self._yielded_s = max(self._yielded_s, before + waited)
        return True

    async def _ask(self, number: int, intended: float) -> bool:
        """Ask once, and keep the record; False, and none, if it was broken off for somebody else."""
        which = number % len(self._prompts)
        record = Record(number, which, intended, self._now())
        self.on_the_way += 1
        try:
            async with asyncio.timeout(None) as cut:
                with self._courtesy.ours(cut):
                    await self._receive(self._prompts[which], record)
        except (EngineError, Problem, SourceError, OSError) as error:  # TimeoutError is one
            if cut.expired() or (isinstance(error, Refused) and self._courtesy.busy):
                self._yielded += 1
                return False
            record.ended = self._now()
            record.outcome = "incomplete" if record.texts else "error"
            record.error = word(error)
        except asyncio.CancelledError:
            record.ended, record.outcome = self._now(), "cancelled"
            self.records.append(record)
            raise
        finally:
            self.on_the_way -= 1
        self.records.append(record)
        self._tell(self)
        return True

    async def _receive(self, prompt: Prompt, record: Record) -> None:
        async with self._source.stream(prompt) as parts:
            async for part in parts:
                record.see(part, self._now())
        if record.ended is None:
            record.ended, record.error = self._now(), "broken_off"


def word(error: Exception) -> str:
    """What went wrong, without anything that a person or a model wrote."""
    match error:
        case Problem():
            return error.code
        case SourceError():
            return str(error)
        case _:
            return type(error).__name__
