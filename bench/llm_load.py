"""Streams of generated text: a closed loop of clients, each reading its answer piece by piece."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from bench.outcome import Latency
from bench.procs import busy_s, cpu_s, proportional

LONGEST = 8
"""A cell ends after so many times its seconds, however few answers there were."""
TIMEOUT_S = 300.0


@dataclass(slots=True)
class Answer:
    """One answer as it came. Times are of this process's clock; `tokens` are as the server counts them."""

    sent: float
    status: int = 0
    pieces: list[float] = field(default_factory=list)
    """When each piece of text came that is not empty."""
    text: str = ""
    tokens: int = 0
    cached: int = 0
    finish: str | None = None
    error: str | None = None
    over: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.pieces[0] - self.sent

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False)]


class Client:
    """Asks one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
        self._session, self._url, self._headers = session, url, dict(headers)

    async def ask(self, body: object, leave: Callable[[Answer], bool] = lambda answer: False) -> Answer:
        """One answer, to its end, or until `leave`, asked after each event, says to hang up."""
        answer = Answer(time.perf_counter())
        try:
            async with self._session.post(self._url, data=orjson.dumps(body), headers=self._headers) as response:
                answer.status = response.status
                if response.status != 200:
                    answer.error = (await response.text())[:300]
                    return answer
                async for line in response.content:
                    if line.startswith(b"data:"):
                        self._event(answer, line[5:].strip())
                        if leave(answer):
                            answer.finish = "left"
                            return answer
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        finally:
            answer.over = time.perf_counter()
        return answer

    @staticmethod
    def _event(answer: Answer, data: bytes) -> None:
        if data == b"[DONE]":
            return
        event = orjson.loads(data)
        if event.get("error"):
            answer.error = str(event["error"])[:300]
        for choice in event.get("choices", ()):
            if choice.get("text"):
                answer.pieces.append(time.perf_counter())
                answer.text += choice["text"]
            answer.finish = choice.get("finish_reason") or answer.finish
        if usage := event.get("usage"):
            answer.tokens = usage["completion_tokens"]
            answer.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def session() -> aiohttp.ClientSession:
    """A connection for each answer, JSON out and events in."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),  # llama.cpp closes after a stream
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers={"content-type": "application/json"},
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """`clients` that each keep one answer of `tokens` tokens in flight. Measured from when there were as many answers
    as clients, so that not all prompts are read at once, for `seconds`, and until there were twice as many more."""

    clients: int
    tokens: int
    seconds: float


async def measured(
    cell: Cell, client: Client, prompts: Iterator[str], body: Callable[[object], object], pids: Callable[[], list[int]]
) -> dict[str, Any]:
    """The figures of one cell."""
    answers: list[Answer] = []
    closed = asyncio.Event()

    async def ask() -> None:
        while not closed.is_set():
            answers.append(await client.ask(body((next(prompts), cell.tokens))))
            if answers[-1].error:
                closed.set()

    async def until(count: int, longest_s: float) -> None:
        """Until there are so many answers, if it does not take too long."""
        late = time.perf_counter() + longest_s
        while len(answers) < count and not closed.is_set() and time.perf_counter() < late:
            await asyncio.sleep(0.01)

    def meter() -> tuple[float, float, float, float]:
        known = pids()
        return time.perf_counter(), cpu_s(known), busy_s(), time.process_time()

    tasks = [asyncio.create_task(ask()) for _ in range(cell.clients)]
    await until(cell.clients, LONGEST * cell.seconds)
    first, had = meter(), len(answers)
    await asyncio.sleep(0 if closed.is_set() else cell.seconds)
    await until(had + 2 * cell.clients, LONGEST * cell.seconds)
    last = meter()
    closed.set()
    pss = proportional(pids())
    await asyncio.gather(*tasks)
    return _figures(cell, answers, first, last) | {"pss_mib": pss / 2**20}


def _figures(cell: Cell, answers: list[Answer], first: tuple[float, ...], last: tuple[float, ...]) -> dict[str, Any]:
    """Tokens are counted when their piece comes: an answer's tokens are shared out evenly among its pieces."""
    opens, closes = first[0], last[0]
    right = [answer for answer in answers if not _wrong(answer, cell.tokens)]
    inside = 0.0
    for answer in right:
        each = cell.tokens / len(answer.pieces)
        inside += each * sum(opens <= at < closes for at in answer.pieces)
    cpu, seconds = last[1] - first[1], closes - opens
    begun = [answer for answer in right if answer.sent >= opens]
    ttft = Latency.of(answer.ttft_s for answer in begun)
    gaps = Latency.of(gap for answer in begun for gap in answer.gaps())
    return {
        "tokens_per_s": inside / seconds,
        "tokens_per_cpu_s": inside / cpu if cpu else 0.0,
        "ttft_p50_ms": ttft.p50,
        "ttft_p95_ms": ttft.p95,
        "itl_p50_ms": gaps.p50,
        "itl_p99_ms": gaps.p99,
        "answers": len(right),
        "seconds": seconds,
        "client_cores": (last[3] - first[3]) / seconds,
        "other_cores_busy": max(0.0, (last[2] - first[2] - cpu - (last[3] - first[3])) / seconds),
        "errors": dict(Counter(wrong for answer in answers if (wrong := _wrong(answer, cell.tokens)))),
    }


def _wrong(answer: Answer, tokens: int) -> str | None:
    """Why this is not an answer of so many tokens. Who doesn't count them is believed when the length was the end."""
    if answer.error:
        return f"{answer.status} {answer.error}"
    if not answer.pieces or answer.finish != "length":
        return f"ended with {answer.finish}"
    return f"{answer.tokens} tokens" if answer.tokens not in (0, tokens) else None
