"""Brings the benchmark tables of a database to this version's shape."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text

VERSION_TABLE = "maru_schema"
"""Not Alembic's own name, which an MLflow in the same database has."""

_LOCK = 0x6D617276


def migrate(engine: Engine, revision: str = "head") -> None:
    """Run the migrations that are missing, all or none. Several processes may do so at once; one works."""
    with engine.begin() as connection:
        exclusive(connection, _LOCK)
        command.upgrade(_config(connection), revision)


def revert(engine: Engine, revision: str) -> None:
    """Go back to a revision (`base`: to nothing). What the tables held that it does not know is lost."""
    with engine.begin() as connection:
        exclusive(connection, _LOCK)
        command.downgrade(_config(connection), revision)


def exclusive(connection: Connection, lock: int) -> None:
    """Make this transaction, which has done nothing yet, the only one with that lock."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config
