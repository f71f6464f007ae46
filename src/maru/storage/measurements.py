"""What was measured, in rows: samples of the machine during a benchmark, and one line for each generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select, table
from sqlalchemy import column as named
from sqlalchemy.dialects import postgresql, sqlite

from maru.storage.database import Moment
from maru.storage.measurement_tables import gpu_metrics, gpu_minutes, inference_logs, metrics_writers
from maru.storage.timescale import KEEP_DAYS, Ability

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_FIGURES = {"temperature": "temperature", "utilization": "utilization", "power": "power_usage", "cpu": "cpu_percent"}


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One GPU of one sample, or the machine alone where there is none. Bytes, percent, °C and watts."""

    time: datetime
    benchmark_id: str
    temperature: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: float | None = None
    power_usage: float | None = None
    gpu: int | None = None
    cpu_percent: float | None = None
    host_memory_used: int | None = None
    host_memory_total: int | None = None


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """One generation. Lengths in tokens, times in seconds."""

    time: datetime
    model_id: str
    prompt_length: int
    generated_tokens: int
    tokens_per_second: float | None
    time_to_first_token: float | None
    total_time: float


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute of a benchmark."""

    bucket: datetime
    avg_temperature: float | None
    max_memory: int | None
    avg_utilization: float | None
    avg_power: float | None
    avg_cpu: float | None
    max_host_memory: int | None


Row = MachineRow | InferenceRow

_minutes_view = table(
    "gpu_metrics_1min",
    named("bucket", Moment),
    named("benchmark_id"),
    *(named(name) for name in Minute.__slots__ if name != "bucket"),
)


class Measurements:
    """The tables of what was measured. All methods block, and belong in a worker thread."""

    def __init__(self, engine: Engine, ability: Ability) -> None:
        self._engine = engine
        self._ability = ability

    def write(self, rows: Sequence[Row], writer: str, batch: int, now: datetime) -> bool:
        """Store a batch, all or none; whether it was new: a writer's batches are numbered and stored once each."""
        with self._engine.begin() as connection:
            if not self._take(connection, writer, batch, now):
                return False
            machine = [row for row in rows if isinstance(row, MachineRow)]
            self._insert(connection, gpu_metrics, machine)
            self._insert(connection, inference_logs, [row for row in rows if isinstance(row, InferenceRow)])
            if machine and not self._ability.aggregates:
                self._add_up(connection, machine)
        return True

    def _take(self, connection: Connection, writer: str, batch: int, now: datetime) -> bool:
        t = metrics_writers
        insert = _INSERT[self._engine.dialect.name](t)
        statement = insert.on_conflict_do_update(
            index_elements=[t.c.writer], set_={"batch": insert.excluded.batch, "written": insert.excluded.written},
            where=t.c.batch < insert.excluded.batch,
        ).returning(t.c.batch)  # fmt: skip
        taken = connection.execute(statement, {"writer": writer, "batch": batch, "written": now}).all()
        return bool(taken)

    def _insert(self, connection: Connection, into: Table, rows: Sequence[Row]) -> None:
        if not rows:
            return
        if self._engine.dialect.name != "postgresql":
            connection.execute(into.insert(), [asdict(row) for row in rows])
            return
        names = type(rows[0]).__slots__
        cursor = connection.connection.cursor()
        try:
            with cursor.copy(f"COPY {into.name} ({', '.join(names)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row([getattr(row, name) for name in names])
        finally:
            cursor.close()

    def _add_up(self, connection: Connection, rows: Iterable[MachineRow]) -> None:
        t = gpu_minutes
        insert = _INSERT[self._engine.dialect.name](t)
        new = insert.excluded
        merged: dict[str, Any] = {}
        for name in _FIGURES:
            merged[f"{name}_n"] = t.c[f"{name}_n"] + new[f"{name}_n"]
            merged[f"{name}_sum"] = t.c[f"{name}_sum"] + new[f"{name}_sum"]
        larger = func.greatest if self._engine.dialect.name == "postgresql" else func.max
        for name in ("max_memory", "max_host_memory"):  # SQLite's max of a null is null
            old, fresh = t.c[name], new[name]
            merged[name] = larger(func.coalesce(old, fresh), func.coalesce(fresh, old))
        statement = insert.on_conflict_do_update(index_elements=[t.c.bucket, t.c.benchmark_id], set_=merged)
        connection.execute(statement, _sums(rows))

    def samples(
        self, benchmark_id: str, *, start: datetime | None = None, end: datetime | None = None, most: int = 10_000
    ) -> list[MachineRow]:
        """The samples of a benchmark from `start` and before `end`, the oldest first, so many of them."""
        t = gpu_metrics
        wanted = select(t).where(t.c.benchmark_id == benchmark_id)
        if start is not None:
            wanted = wanted.where(t.c.time >= start)
        if end is not None:
            wanted = wanted.where(t.c.time < end)
        with self._engine.connect() as connection:
            rows = connection.execute(wanted.order_by(t.c.time, t.c.gpu.nulls_first()).limit(most))
            return [MachineRow(**row._mapping) for row in rows]

    def minutes(self, benchmark_id: str) -> list[Minute]:
        """The same by the minute, whatever has added it up."""
        v = _minutes_view
        wanted = select(*(v.c[name] for name in Minute.__slots__)).where(v.c.benchmark_id == benchmark_id)
        with self._engine.connect() as connection:
            return [_minute(row._mapping) for row in connection.execute(wanted.order_by(v.c.bucket))]

    def inferences(self, model_id: str, most: int = 1000) -> list[InferenceRow]:
        """The latest generations of a model, the newest first."""
        t = inference_logs
        wanted = select(t).where(t.c.model_id == model_id).order_by(t.c.time.desc()).limit(most)
        with self._engine.connect() as connection:
            return [InferenceRow(**row._mapping) for row in connection.execute(wanted)]

    def forget(self, now: datetime) -> None:
        """Delete what is older than three months, where the database has no policy that does."""
        before = now - timedelta(days=KEEP_DAYS)
        with self._engine.begin() as connection:
            if not self._ability.aggregates:
                for each in (gpu_metrics, inference_logs):
                    connection.execute(each.delete().where(each.c.time < before))
            connection.execute(metrics_writers.delete().where(metrics_writers.c.written < before))


def _sums(rows: Iterable[MachineRow]) -> list[dict[str, Any]]:
    """Of each benchmark in each minute, in one order everywhere."""
    sums: dict[tuple[datetime, str], dict[str, Any]] = {}
    for row in rows:
        key = (row.time.replace(second=0, microsecond=0), row.benchmark_id)
        into = sums.get(key)
        if into is None:
            into = sums[key] = {"bucket": key[0], "benchmark_id": key[1], "max_memory": None, "max_host_memory": None}
            into.update({f"{name}_n": 0 for name in _FIGURES} | {f"{name}_sum": 0.0 for name in _FIGURES})
        for name, attribute in _FIGURES.items():
            value = getattr(row, attribute)
            if value is not None:
                into[f"{name}_n"] += 1
                into[f"{name}_sum"] += value
        into["max_memory"] = _larger(into["max_memory"], row.memory_used)
        into["max_host_memory"] = _larger(into["max_host_memory"], row.host_memory_used)
    return [sums[key] for key in sorted(sums)]


def _larger(old: int | None, new: int | None) -> int | None:
    return new if old is None else old if new is None else max(old, new)


def _minute(row: Mapping[Any, Any]) -> Minute:
    """An average may come as another kind of number than a float."""
    figures: dict[str, Any] = dict(row)
    for name in ("avg_temperature", "avg_utilization", "avg_power", "avg_cpu"):
        figures[name] = None if figures[name] is None else float(figures[name])
    return Minute(**figures)
