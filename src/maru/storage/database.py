"""The SQL database: SQLite in a file unless a server is named."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, Dialect, Engine, MetaData, TypeDecorator, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of ours. Constraints have names, so that a migration can drop them."""

_CREATE_LOCK = 0x6D617275
_BUSY_S = 5.0
_POSTGRESQL = {"connect_timeout": 3, "tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5}
"""What libpq is told unless the URL says otherwise (seconds; the second in milliseconds): a host that has gone away
without a word is noticed, and not waited for as long as TCP would."""


class Moment(TypeDecorator[datetime]):
    """A moment in time, aware and in UTC on the way in and on the way out, on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs its time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def connect(url: str) -> Engine:
    """An engine for `url`, a SQLAlchemy URL. It blocks: call it from a worker thread.

    A SQLite file and its folder are made where they are missing, readable by their owner alone. A URL that
    is not one, or whose driver is not installed, raises ValueError.
    """
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
        if parsed.get_backend_name() != "sqlite":
            postgresql = parsed.get_driver_name() in ("psycopg", "psycopg2")
            own = {name: value for name, value in _POSTGRESQL.items() if postgresql and name not in parsed.query}
            return create_engine(
                parsed, connect_args=own, pool_size=5, max_overflow=5, pool_timeout=2.0, pool_pre_ping=True
            )
    except (ArgumentError, NoSuchModuleError):
        raise ValueError("DATABASE_URL is not a database URL, such as postgresql://user@host/name") from None
    except ModuleNotFoundError as error:
        raise ValueError(f"DATABASE_URL needs the package {error.name}, which is not installed") from None
    if parsed.database and parsed.database != ":memory:":
        file = Path(parsed.database)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_S})
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def create(engine: Engine) -> None:
    """Make the tables that are missing. Several processes may do so at once."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATE_LOCK})
        metadata.create_all(connection)


def _configure_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_S * 1000:.0f}")
    _use_write_ahead_log(cursor)
    # FULL: what was acknowledged survives a loss of power, not only a crash.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    # The one statement for which SQLite does not wait: of several processes that open a new file all but one
    # are told at once that it is locked.
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
