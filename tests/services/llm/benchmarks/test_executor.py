"""The executor over a real table, with jobs that do what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from maru.services.llm.benchmarks.executor import Executor, Pace
from maru.storage.benchmarks import BenchmarkRun, BenchmarkRuns, Conclusion
from maru.storage.database import connect
from maru.storage.migrate import migrate

QUICK = Pace(poll_s=0.02, beat_s=0.02, lease_s=2.0, patience_s=1.0)


class Task:
    """A job that is done when `go` is set."""

    def __init__(self, run: BenchmarkRun, go: asyncio.Event, fault: Exception | None = None) -> None:
        self.benchmark_id = run.benchmark_id
        self.go = go
        self.fault = fault
        self.ended = False

    async def run(self) -> Conclusion:
        try:
            await self.go.wait()
        finally:
            self.ended = True
        if self.fault is not None:
            raise self.fault
        return Conclusion("completed", avg_tokens_per_second=1.0, results={"levels": []})

    def progress(self) -> Mapping[str, Any]:
        return {"done": 1}

    def partial(self) -> Conclusion:
        return Conclusion("failed", "half of it", results={"half": True})


class Away(BenchmarkRuns):
    """A table that can't be reached while `away` is set."""

    away = False

    def _reach(self) -> None:
        if self.away:
            raise OperationalError("UPDATE", {}, Exception("the server closed the connection"))

    def claim(self, *given: Any) -> Any:
        self._reach()
        return super().claim(*given)

    def beat(self, *given: Any) -> Any:
        self._reach()
        return super().beat(*given)

    def finish(self, *given: Any) -> Any:
        self._reach()
        return super().finish(*given)

    def expire(self, *given: Any) -> Any:
        self._reach()
        return super().expire(*given)


class World:
    """An executor over a table of a few runs."""

    def __init__(self, folder: Path, fault: Exception | None = None) -> None:
        engine = connect(f"sqlite:///{folder}/maru.db")
        migrate(engine)
        self.runs = Away(engine, lease_s=2.0)
        self.jobs: list[Task] = []
        self.go = asyncio.Event()
        self.fault = fault
        self.executor = Executor(self.runs, self.begin, QUICK)

    def begin(self, run: BenchmarkRun) -> Task:
        self.jobs.append(Task(run, self.go, self.fault))
        return self.jobs[-1]

    def add(self, *names: str) -> None:
        for name in names:
            self.runs.add(name, "m", {}, "ann", 100)
        self.executor.wake()

    def get(self, name: str) -> BenchmarkRun:
        run = self.runs.get(name)
        assert run is not None
        return run

    async def until(self, name: str, status: str) -> BenchmarkRun:
        async with asyncio.timeout(10):
            while self.get(name).status != status:
                await asyncio.sleep(0.01)
        return self.get(name)


def run(folder: Path, work: Callable[[World], Awaitable[None]], fault: Exception | None = None) -> World:
    async def within() -> World:
        world = World(folder, fault)
        async with world.executor.executing():
            await work(world)
        return world

    return asyncio.run(asyncio.wait_for(within(), 30))


def test_a_run_is_done_and_then_the_next(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.add("a", "b")
        going = await world.until("a", "running")
        assert world.executor.running == "a" and world.get("b").status == "started"
        assert going.started_at is not None
        world.go.set()
        assert (await world.until("a", "completed")).results == {"levels": []}
        await world.until("b", "completed")
        assert world.executor.running is None and world.executor.job is None

    assert [job.benchmark_id for job in run(tmp_path, work).jobs] == ["a", "b"]


def test_a_cancelled_run_has_ended_before_another_begins(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.add("a", "b")
        await world.until("a", "running")
        world.runs.cancel("a")
        world.executor.wake()
        ended = await world.until("a", "cancelled")
        assert ended.results == {"half": True} and ended.error is None
        assert world.jobs[0].ended
        world.go.set()
        await world.until("b", "completed")

    run(tmp_path, work)


def test_a_job_that_breaks_is_a_run_that_failed_and_shows_nobody_why(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.go.set()
        world.add("a", "b")
        assert (await world.until("a", "failed")).error == "internal error (ValueError)"
        await world.until("b", "failed")

    run(tmp_path, work, ValueError("a secret"))


def test_the_end_of_the_server_is_the_end_of_the_run(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.add("a")
        await world.until("a", "running")

    world = run(tmp_path, work)
    assert (world.get("a").status, world.get("a").error) == ("failed", "interrupted")
    assert world.jobs[0].ended


def test_a_server_that_begins_to_stop_ends_the_run_and_begins_no_other(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.add("a", "b")
        await world.until("a", "running")
        world.executor.stop()
        ended = await world.until("a", "failed")
        assert (ended.error, ended.results) == ("interrupted", {"half": True})
        await asyncio.sleep(0.2)
        assert world.get("b").status == "started", "which is for the next server"

    run(tmp_path, work)


def test_a_table_that_is_away_for_a_moment_is_no_trouble(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.add("a")
        await world.until("a", "running")
        world.runs.away = True
        await asyncio.sleep(0.2)
        world.runs.away = False
        await asyncio.sleep(0.4)
        world.go.set()
        await world.until("a", "completed")

    run(tmp_path, work)


def test_one_that_is_away_for_longer_than_the_lease_ends_the_run(tmp_path: Path) -> None:
    """For another may have been begun in its place. It is told as soon as the table is back."""

    async def work(world: World) -> None:
        world.add("a")
        await world.until("a", "running")
        world.runs.away = True
        async with asyncio.timeout(10):
            while not world.jobs[0].ended:
                await asyncio.sleep(0.01)
        world.runs.away = False
        assert (await world.until("a", "failed")).error == "the database could not be reached"
        world.go.set()
        world.add("b")
        await world.until("b", "completed")

    run(tmp_path, work)


def test_a_run_that_was_given_up_meanwhile_stays_given_up(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.add("a")
        await world.until("a", "running")
        with world.runs._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE benchmark_history SET status = 'failed', error = 'interrupted'")
        async with asyncio.timeout(10):
            while not world.jobs[0].ended:
                await asyncio.sleep(0.01)
        world.go.set()
        world.add("b")
        await world.until("b", "completed")
        assert world.get("a").error == "interrupted"

    run(tmp_path, work)


def test_it_waits_for_a_table_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        world.runs.away = True
        await asyncio.sleep(0.1)
        world.runs.away = False
        world.go.set()
        world.add("a")
        await world.until("a", "completed")

    run(tmp_path, work)
