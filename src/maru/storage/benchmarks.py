"""Benchmark runs: who asked for them, which one is being run and by whom, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, exists, func, select, text, true

from maru.engine.errors import QueueFull
from maru.storage.measurement_tables import benchmark_history
from maru.storage.migrate import exclusive

Status = Literal["started", "running", "completed", "failed", "cancelled"]
"""`started` is the document's word for one that was taken and waits for its turn."""

INTERRUPTED = "interrupted"

_LOCK = 0x6D617277


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """One run. The times are the database's; `lease_until` is when its executor is taken for dead."""

    benchmark_id: str
    model_id: str
    status: Status
    owner: str
    config: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    avg_tokens_per_second: float | None = None
    avg_time_to_first_token: float | None = None
    memory_peak_bytes: int | None = None
    results: Mapping[str, Any] | None = None
    error: str | None = None
    progress: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        return self.status not in ("started", "running")


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a run ended, and its figures if it has any. Rates in tokens a second, times in seconds."""

    status: Status
    error: str | None = None
    avg_tokens_per_second: float | None = None
    avg_time_to_first_token: float | None = None
    memory_peak_bytes: int | None = None
    results: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None


_COLUMNS = tuple(BenchmarkRun.__slots__)


class BenchmarkRuns:
    """The table of runs, shared by all processes of one database: one of them runs one run at a time.

    Whoever claims a run holds it for `lease_s` from each `beat` on. A run that nobody holds any more has failed.
    All methods block for milliseconds and belong in a worker thread.
    """

    def __init__(self, engine: Engine, *, lease_s: float = 4.0) -> None:
        self._engine = engine
        self._lease = timedelta(seconds=lease_s)

    def add(self, benchmark_id: str, model_id: str, config: Mapping[str, Any], owner: str, most: int) -> None:
        """Have it run after those that wait. QueueFull when `most` of its owner's wait."""
        t = benchmark_history
        with self._alone() as connection:
            waiting = select(func.count()).where(t.c.status == "started", t.c.owner == owner)
            if connection.execute(waiting).scalar_one() >= most:
                raise QueueFull(f"{most} benchmarks are waiting already", retry_after_s=30.0)
            row = {"benchmark_id": benchmark_id, "model_id": model_id, "config": dict(config), "owner": owner}
            connection.execute(t.insert(), {**row, "status": "started", "created_at": _now(connection)})

    def claim(self, executor: str) -> BenchmarkRun | None:
        """Take the run that waits longest, if none is being run."""
        t = benchmark_history
        waits, runs = exists().where(t.c.status == "started"), exists().where(t.c.status == "running")
        with self._engine.connect() as connection:  # so that who finds nothing locks nothing
            if not connection.execute(select(waits & ~runs)).scalar_one():
                return None
        oldest = select(t.c.benchmark_id).where(t.c.status == "started")
        first = oldest.order_by(t.c.created_at, t.c.benchmark_id).limit(1).scalar_subquery()
        with self._alone() as connection:
            if connection.execute(select(runs)).scalar_one():
                return None
            now = _now(connection)
            mine = {"status": "running", "executor": executor, "started_at": now, "lease_until": now + self._lease}
            take = t.update().where(t.c.benchmark_id == first).values(mine).returning(*(t.c[name] for name in _COLUMNS))
            row = connection.execute(take).one_or_none()
        return None if row is None else BenchmarkRun(**row._mapping)

    def beat(self, benchmark_id: str, executor: str, progress: Mapping[str, Any]) -> Literal["go", "cancel", "lost"]:
        """Hold a claimed run for longer and say how far it is: whether to go on with it. `lost`: it is not ours."""
        t = benchmark_history
        with self._engine.begin() as connection:
            held = {"lease_until": _now(connection) + self._lease, "progress": dict(progress)}
            mine = t.update().where(*_held_by(benchmark_id, executor)).values(held).returning(t.c.cancelling)
            cancelling = connection.execute(mine).scalar_one_or_none()
        return "lost" if cancelling is None else "cancel" if cancelling else "go"

    def finish(self, benchmark_id: str, executor: str, conclusion: Conclusion) -> bool:
        """End a claimed run; whether it was still ours to end."""
        t = benchmark_history
        values = {name: getattr(conclusion, name) for name in Conclusion.__slots__}
        with self._engine.begin() as connection:
            ended = {**values, "finished_at": _now(connection), "lease_until": None}
            done = connection.execute(t.update().where(*_held_by(benchmark_id, executor)).values(ended))
        return done.rowcount == 1

    def expire(self, executor: str) -> list[str]:
        """Have those failed whose executor is dead, and those of this one, which does none now; their ids.

        It has one all the same when it never heard that it had claimed it.
        """
        t = benchmark_history
        running = t.c.status == "running"
        with self._engine.connect() as connection:
            if not connection.execute(select(exists().where(running))).scalar_one():
                return []
        with self._engine.begin() as connection:
            now = _now(connection)
            dead = t.update().where(running, (t.c.lease_until < now) | (t.c.executor == executor))
            failed = {"status": "failed", "error": INTERRUPTED, "finished_at": now, "lease_until": None}
            return list(connection.execute(dead.values(failed).returning(t.c.benchmark_id)).scalars())

    def cancel(self, benchmark_id: str) -> BenchmarkRun | None:
        """One that waits is cancelled at once, one that runs at its next beat; one that has ended stays what it is."""
        t = benchmark_history
        this = t.c.benchmark_id == benchmark_id
        with self._alone() as connection:
            gone = {"status": "cancelled", "finished_at": _now(connection)}
            connection.execute(t.update().where(this, t.c.status == "started").values(gone))
            connection.execute(t.update().where(this, t.c.status == "running").values(cancelling=true()))
        return self.get(benchmark_id)

    def get(self, benchmark_id: str, *, results: bool = True) -> BenchmarkRun | None:
        """That run. `results` False leaves out its large part."""
        t = benchmark_history
        names = [name for name in _COLUMNS if results or name != "results"]
        wanted = select(*(t.c[name] for name in names)).where(t.c.benchmark_id == benchmark_id)
        with self._engine.connect() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else BenchmarkRun(**row._mapping)

    def latest(self, model_id: str | None = None, most: int = 50) -> list[BenchmarkRun]:
        """The newest runs, without their results."""
        t = benchmark_history
        wanted = select(*(t.c[name] for name in _COLUMNS if name != "results"))
        if model_id is not None:
            wanted = wanted.where(t.c.model_id == model_id)
        with self._engine.connect() as connection:
            rows = connection.execute(wanted.order_by(t.c.created_at.desc(), t.c.benchmark_id).limit(most))
            return [BenchmarkRun(**row._mapping) for row in rows]

    def _alone(self) -> _Alone:
        return _Alone(self._engine)


class _Alone:
    """A transaction beside which no other of its kind runs."""

    def __init__(self, engine: Engine) -> None:
        self._transaction = engine.begin()

    def __enter__(self) -> Connection:
        connection = self._transaction.__enter__()
        exclusive(connection, _LOCK)
        return connection

    def __exit__(self, *error: Any) -> None:
        self._transaction.__exit__(*error)


def _held_by(benchmark_id: str, executor: str) -> tuple[Any, ...]:
    c = benchmark_history.c
    return c.benchmark_id == benchmark_id, c.executor == executor, c.status == "running"


def _now(connection: Connection) -> datetime:
    """By the one clock that all processes of this database share."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)
