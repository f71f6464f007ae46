"""Answers that come in events: the state of the service as it changes, and a text read word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from maru.engine.errors import DeadlineUnreachable, QueueFull
from maru.engine.types import Clock, Result
from maru.http.call import Call
from maru.http.errors import problem_of
from maru.http.problem import Problem
from maru.http.sse import ServerEvent
from maru.services.style.answers import scored
from maru.services.style.declaration import envelope
from maru.services.style.service import Styles
from maru.telemetry.host import HostSample

MAX_STEPS = 10


def steps(text: str) -> list[tuple[str, float]]:
    """How a text is read: from its beginning, each time some words further, the last time whole. With each part,
    which share of the words it has."""
    ends = _word_ends(text)
    count = min(len(ends), MAX_STEPS)
    words = [len(ends) * step // count for step in range(1, count + 1)]
    return [(text[: ends[read - 1]], round(read / len(ends), 4)) for read in words[:-1]] + [(text, 1.0)]


def _word_ends(text: str) -> list[int]:
    ends = [place for place in range(1, len(text)) if text[place].isspace() and not text[place - 1].isspace()]
    return ends if text[-1].isspace() else [*ends, len(text)]


class TextReading:
    """One text, read step by step. Each step is an inference of its own, in line like any other, so that whoever is
    slow to read the answers holds no slot."""

    def __init__(self, styles: Styles, call: Call, text: str, interval_s: float, clock: Clock) -> None:
        self._styles = styles
        self._call = call
        self._steps = steps(text)
        self._interval_s = interval_s
        self._clock = clock
        self._began = clock()
        self._first: Result | None = None

    async def begin(self) -> None:
        """The first step. What it raises can still be a status code."""
        self._first = await self._styles.read_text(self._call, self._steps[0][0], began=self._began)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        """An event a step, `interval_s` apart at the least."""
        yield self._events()

    async def _events(self) -> AsyncIterator[ServerEvent]:
        assert self._first is not None
        result, sent = self._first, 0.0
        for number, (part, progress) in enumerate(self._steps, 1):
            if number > 1:
                await asyncio.sleep(sent + self._interval_s - self._clock())
                result = await self._patiently(part)
            found: dict[str, Any] = scored(result.outputs[0][0])
            told: dict[str, Any] = {"step": number, "progress": progress}
            if number < len(self._steps):
                told["partial_result"] = found
            else:
                seconds = round(self._clock() - self._began, 6)
                self._styles.completed(self._call, seconds)
                told["final_result"] = found | {"processing_time": seconds, "model_version": result.ref.version}
            sent = self._clock()
            yield ServerEvent.of(told)

    async def _patiently(self, part: str) -> Result:
        """A stream that was begun goes on: refused a place, it asks again when it was told to, until its deadline."""
        began = self._clock()
        while True:
            try:
                return await self._styles.read_text(self._call, part, began=began)
            except Problem as problem:
                refusal = problem.__cause__
                if not isinstance(refusal, QueueFull | DeadlineUnreachable):
                    raise
                if self._clock() + refusal.retry_after_s > began + self._styles.timeout_s:
                    raise
            await asyncio.sleep(refusal.retry_after_s)


@asynccontextmanager
async def states(styles: Styles, every_s: float) -> AsyncIterator[AsyncIterator[ServerEvent]]:
    """The service's state now, and then every `every_s` seconds."""
    async with styles.machine.watch(every_s) as samples:
        yield _states(styles, samples)


async def _states(styles: Styles, samples: AsyncIterator[HostSample]) -> AsyncIterator[ServerEvent]:
    async for sample in samples:
        host = asdict(sample)
        gpus = host.pop("gpus")
        yield ServerEvent.of(styles.state().model_dump() | {"gpu": gpus, "host": host})


def describing(call: Call) -> Callable[[Exception], ServerEvent]:
    """Makes the event of an error that cuts a stream short."""

    def describe(error: Exception) -> ServerEvent:
        problem = problem_of(error, 400)
        problem.details.setdefault("request_id", call.request_id)
        call.error = problem.code
        return ServerEvent.of(envelope(problem), "error")

    return describe
