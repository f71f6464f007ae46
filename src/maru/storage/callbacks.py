"""Callbacks that are still to be delivered, kept until they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Column, Engine, Index, Integer, LargeBinary, Row, String, Table, Text, exists, func, select

from maru.storage.database import Moment, metadata

_callbacks = Table(
    "callbacks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("host", String(300), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created", Moment, nullable=False),
    Column("due", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Index("ix_callbacks_due", "due"),
)


@dataclass(frozen=True, slots=True)
class Callback:
    """One delivery. `id` is the same at every attempt, `host` what it shares with others to the same place.

    It is `due` for its next attempt; `attempts` were begun before.
    """

    id: str
    url: str = field(repr=False)
    host: str
    body: bytes = field(repr=False)
    created: datetime
    due: datetime
    attempts: int = 0


class Outbox:
    """The table of callbacks, shared by all processes of one database. It holds `most` of them.

    Whoever claims a callback has it to themselves for a while; if they do not come back, because they were
    killed, it is due again. So each is delivered once at least. All methods block for milliseconds and belong
    in a worker thread.
    """

    def __init__(self, engine: Engine, most: int = 10_000) -> None:
        self._engine = engine
        self._most = most

    def add(self, callbacks: Sequence[Callback]) -> int:
        """Store the first so many for which there is room, in one transaction; how many that were."""
        with self._engine.begin() as connection:
            held = connection.execute(select(func.count()).select_from(_callbacks)).scalar_one()
            fit = callbacks[: max(0, self._most - held)]
            if fit:
                connection.execute(_callbacks.insert(), [_row(callback) for callback in fit])
        return len(fit)

    def claim(
        self, now: datetime, *, lease_s: float, most: int, per_host: int, without: Collection[str] = ()
    ) -> list[Callback]:
        """Take callbacks that are due, `most` at most and `per_host` of each host but those `without`.

        Hosts take turns, so that one with many does not hold up another. What is claimed is due again after
        `lease_s` seconds, unless it is finished or put off before.
        """
        c = _callbacks.c
        wanted = (c.due <= now, c.host.not_in(without))
        turn = func.row_number().over(partition_by=c.host, order_by=c.due).label("turn")
        ready = select(c.id, c.due, turn).where(*wanted).subquery()
        chosen = select(ready.c.id).where(ready.c.turn <= per_host).order_by(ready.c.turn, ready.c.due).limit(most)
        # Of two processes that chose the same, one has it locked, or has moved what is looked at here again.
        mine = select(c.id).where(c.id.in_(chosen), c.due <= now).with_for_update(skip_locked=True)
        take = _callbacks.update().where(c.id.in_(mine), c.due <= now).returning(_callbacks)
        with self._engine.connect() as connection:  # reading first, so that who finds nothing locks nothing
            if not connection.execute(select(exists().where(*wanted))).scalar_one():
                return []
        with self._engine.begin() as connection:
            due = now + timedelta(seconds=lease_s)
            rows = connection.execute(take.values(due=due, attempts=c.attempts + 1)).all()
        return [_callback(row) for row in rows]

    def put_off(self, id: str, due: datetime) -> None:
        """Have it tried again, not before `due`."""
        with self._engine.begin() as connection:
            connection.execute(_callbacks.update().where(_callbacks.c.id == id).values(due=due))

    def release(self, ids: Collection[str], now: datetime) -> None:
        """Give back what was claimed and not tried to the end."""
        with self._engine.begin() as connection:
            connection.execute(_callbacks.update().where(_callbacks.c.id.in_(ids)).values(due=now))

    def finish(self, id: str) -> None:
        """Forget it: it was delivered, or never will be."""
        with self._engine.begin() as connection:
            connection.execute(_callbacks.delete().where(_callbacks.c.id == id))

    def all(self) -> list[Callback]:
        """Every callback, the one that is due first before the others."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_callbacks).order_by(_callbacks.c.due, _callbacks.c.id))
            return [_callback(row) for row in rows]


def _row(callback: Callback) -> dict[str, object]:
    return {column.name: getattr(callback, column.name) for column in _callbacks.columns}


def _callback(row: Row[tuple[object, ...]]) -> Callback:
    return Callback(**row._mapping)
