"""Runs benchmarks, one at a time among all processes of one database, and never leaves one `running` for ever."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from maru.storage.benchmarks import INTERRUPTED, BenchmarkRun, BenchmarkRuns, Conclusion

log = logging.getLogger(__name__)


class Job(Protocol):
    """One run while it is being done."""

    async def run(self) -> Conclusion:
        """Do all of it. When it is cancelled, `partial` says what was done."""
        ...

    def progress(self) -> Mapping[str, Any]:
        """How far it is."""
        ...

    def partial(self) -> Conclusion:
        """What was measured until now, as of a run that has failed. Called in a thread, when `run` has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds. Whoever has not said for `lease_s`, the lease of the table, that they go on is taken for dead."""

    poll_s: float = 0.5
    beat_s: float = 0.5
    lease_s: float = 4.0
    patience_s: float = 5.0


class Executor:
    """Takes runs from the table and does them. `begin` makes the job of a run."""

    def __init__(self, runs: BenchmarkRuns, begin: Callable[[BenchmarkRun], Job], pace: Pace | None = None) -> None:
        self._runs = runs
        self._begin = begin
        self._pace = pace or Pace()
        self._name = f"{os.getpid()}-{uuid4().hex}"
        self._wake = asyncio.Event()
        self._away = False
        self._stopping = False
        self.job: Job | None = None
        self.running: str | None = None
        """The id of the run that is being done here."""

    def wake(self) -> None:
        """A run was added, or is to be cancelled: look at once."""
        self._wake.set()

    def stop(self) -> None:
        """Begin no more, and end what is under way: the server is stopping, and refuses what it would ask."""
        self._stopping = True
        self._wake.set()

    @asynccontextmanager
    async def executing(self) -> AsyncIterator[None]:
        """Do runs in the background. In the end the one under way has failed: it was interrupted."""
        task = asyncio.create_task(self._execute())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _execute(self) -> None:
        while not self._stopping:
            run = await self._next()
            if run is None:
                await self._rest(self._pace.poll_s)
            else:
                await self._do(run)

    async def _next(self) -> BenchmarkRun | None:
        try:
            for dead in await asyncio.to_thread(self._runs.expire, self._name):
                log.warning("benchmark %s was interrupted: its server has ended", dead)
            run = await asyncio.to_thread(self._runs.claim, self._name)
        except SQLAlchemyError as error:
            if not self._away:
                log.error("the table of benchmarks can't be read (%s)", type(error).__name__)
            self._away = True
            return None
        self._away = False
        return run

    async def _do(self, run: BenchmarkRun) -> None:
        self.running, conclusion = run.benchmark_id, Conclusion("failed", INTERRUPTED)
        try:
            job = self.job = self._begin(run)
            doing = asyncio.create_task(job.run())
            try:
                conclusion = await self._watched(run, job, doing)
            finally:
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
        except asyncio.CancelledError:
            await asyncio.shield(self._finish(run, conclusion, self._pace.patience_s))
            raise
        except Exception as error:
            log.exception("benchmark %s failed", run.benchmark_id)
            conclusion = Conclusion("failed", f"internal error ({type(error).__name__})")
        finally:
            self.job = self.running = None
        await self._finish(run, conclusion, None)

    async def _watched(self, run: BenchmarkRun, job: Job, doing: asyncio.Task[Conclusion]) -> Conclusion:
        """Say that it goes on for as long as it does; what it came to."""
        held = time.monotonic()
        while not doing.done():
            began = time.monotonic()
            try:
                verdict = await asyncio.to_thread(self._runs.beat, run.benchmark_id, self._name, dict(job.progress()))
                held = began
            except SQLAlchemyError as error:
                log.warning("benchmark %s can't be held (%s)", run.benchmark_id, type(error).__name__)
                verdict = "go"
            if verdict == "go" and time.monotonic() - held > self._pace.lease_s:
                verdict = "lost"  # another may have been begun in its place
            if verdict != "go" or self._stopping:
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
                if verdict == "cancel":
                    return replace(await asyncio.to_thread(job.partial), status="cancelled", error=None)
                if self._stopping:
                    return replace(await asyncio.to_thread(job.partial), error=INTERRUPTED)
                return replace(await asyncio.to_thread(job.partial), error="the database could not be reached")
            await self._rest(self._pace.beat_s, doing)
        return await doing

    async def _finish(self, run: BenchmarkRun, conclusion: Conclusion, patience_s: float | None) -> None:
        """Write down how it ended, for as long as it takes or that long."""
        began = time.monotonic()
        while True:
            try:
                ours = await asyncio.to_thread(self._runs.finish, run.benchmark_id, self._name, conclusion)
            except SQLAlchemyError as error:
                if patience_s is not None and time.monotonic() - began > patience_s:
                    log.error("how benchmark %s ended can't be stored (%s)", run.benchmark_id, type(error).__name__)
                    return
                await asyncio.sleep(min(0.2, self._pace.poll_s))
            else:
                if not ours:
                    log.warning("benchmark %s had been given up meanwhile", run.benchmark_id)
                return

    async def _rest(self, seconds: float, *until: asyncio.Task[Any]) -> None:
        """That long, or until something is to be done."""
        waking = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait([waking, *until], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        self._wake.clear()
