"""A run as it goes: its progress and the machine's samples, as server-sent events and over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import orjson
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from maru.auth.principal import Authenticator, AuthError, Forbidden
from maru.http.errors import problem_of
from maru.http.problem import Problem
from maru.http.sse import ServerEvent
from maru.services.llm.benchmarks.job import EngineJob
from maru.services.llm.benchmarks.service import Benchmarks
from maru.storage.benchmarks import BenchmarkRun

LOOK_EVERY_S = 1.0
MOST_WAITING = 256
WRITE_TIMEOUT_S = 5.0

Told = tuple[str, Mapping[str, Any]]
"""An event: its name and what it says."""


class Live:
    """Follows runs, those of this process as they happen and those of another as they are stored."""

    def __init__(self, benchmarks: Benchmarks, path: str) -> None:
        self._benchmarks = benchmarks
        self._path = path

    @asynccontextmanager
    async def events(self, benchmark_id: str) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        """`metrics`, `progress` and in the end `done`. A Problem for a run that there is not."""
        run = await self._benchmarks.get(benchmark_id)

        async def encoded() -> AsyncIterator[ServerEvent]:
            async with aclosing(self._follow(run)) as told:
                async for name, data in told:
                    yield ServerEvent.of(data, name)

        yield encoded()

    def websocket(self, authenticator: Authenticator | None) -> WebSocketRoute:
        """The same as messages `{"event": …, "data": …}`, each in a text frame, for whoever `authenticator` knows."""

        async def serve(socket: WebSocket) -> None:
            try:
                _same_origin(socket)
                if authenticator is not None:
                    await authenticator(socket.headers.get("authorization"))
                run = await self._benchmarks.get(socket.path_params["benchmark_id"])
            except (AuthError, Problem) as error:
                await _refuse(socket, problem_of(error, 422))
                return
            await socket.accept()
            await self._serve(socket, run)

        return WebSocketRoute(self._path, serve)

    async def _serve(self, socket: WebSocket, run: BenchmarkRun) -> None:
        """Until the run has ended or the client has left, which it also has when the server stops."""
        sending = asyncio.create_task(self._send(socket, run))
        gone = asyncio.create_task(_gone(socket))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            told = sending.done() and not gone.done()
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if told:
            with suppress(OSError, RuntimeError, WebSocketDisconnect):  # it has left meanwhile
                await socket.close(1011 if sending.exception() else 1000)

    async def _send(self, socket: WebSocket, run: BenchmarkRun) -> None:
        async with aclosing(self._follow(run)) as told:
            async for name, data in told:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await socket.send_text(_frame(name, data))

    async def _follow(self, run: BenchmarkRun) -> AsyncGenerator[Told, None]:
        seen: datetime | None = None
        while not run.ended:
            job = self._benchmarks.executor.job
            if self._benchmarks.executor.running == run.benchmark_id and isinstance(job, EngineJob):
                async with aclosing(_heard(job)) as told:
                    async for name, data in told:
                        yield name, {"status": run.status, **data} if name == "progress" else data
                        if self._benchmarks.executor.job is not job:
                            break
            else:
                yield "progress", {"status": run.status, **(await self._benchmarks.progress(run) or {})}
                if run.status == "running":
                    async for sample in self._stored(run, seen):
                        seen = datetime.fromisoformat(sample["time"])
                        yield "metrics", sample
                await asyncio.sleep(LOOK_EVERY_S)
            run = await self._benchmarks.get(run.benchmark_id)
        yield "done", (await self._benchmarks.status(run)).model_dump()

    async def _stored(self, run: BenchmarkRun, seen: datetime | None) -> AsyncIterator[dict[str, Any]]:
        """What another process has stored of the machine since then, or in the last seconds."""
        start = seen + timedelta(microseconds=1) if seen else (run.started_at or run.created_at)
        for row in (await self._benchmarks.samples(run.benchmark_id, start, None))[-MOST_WAITING:]:
            yield {**asdict(row), "time": row.time.isoformat()}


async def _heard(job: EngineJob) -> AsyncGenerator[Told, None]:
    """What happens in a job of this process. Of a reader who is too slow for it the oldest is dropped."""
    waiting: asyncio.Queue[Told] = asyncio.Queue(MOST_WAITING)

    def hear(name: str, data: Mapping[str, Any]) -> None:
        if waiting.full():
            waiting.get_nowait()
        waiting.put_nowait((name, data))

    leave = job.listen(hear)
    try:
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    told = await waiting.get()
            except TimeoutError:
                return
            yield told
    finally:
        leave()


def _frame(name: str, data: Mapping[str, Any]) -> str:
    return orjson.dumps({"event": name, "data": data}).decode()


def _same_origin(socket: WebSocket) -> None:
    """A page of another site, whose script a browser runs, has no business here."""
    origin, host = socket.headers.get("origin"), socket.headers.get("host")
    if origin is not None and origin.partition("://")[2] != host:
        raise Forbidden("a page of another origin may not open this")


async def _refuse(socket: WebSocket, problem: Problem) -> None:
    """Before it is accepted, so that the handshake itself is answered."""
    extensions = socket.scope.get("extensions") or {}
    if "websocket.http.response" in extensions:
        headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
        await socket.send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
        await socket.send({"type": "websocket.http.response.body", "body": b""})
    else:
        await socket.close(1008)


async def _gone(socket: WebSocket) -> None:
    """Until the client has left. What it says is not asked for."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
