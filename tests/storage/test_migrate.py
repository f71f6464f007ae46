from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from maru.storage import database
from maru.storage.api_keys import ApiKeys
from maru.storage.database import connect
from maru.storage.measurement_tables import metadata
from maru.storage.migrate import VERSION_TABLE, migrate, revert
from maru.storage.timescale import prepare

VIEW = "gpu_metrics_1min"


def tables(url: str) -> set[str]:
    return set(inspect(connect(url)).get_table_names())


def test_nothing_becomes_the_documents_tables_and_again_changes_nothing(url: str) -> None:
    engine = connect(url)
    for _ in range(2):
        migrate(engine)
        prepare(engine)
    assert {"gpu_metrics", "inference_logs", "benchmark_history"} <= tables(url)
    assert VIEW in inspect(connect(url)).get_view_names()
    names = [column["name"] for column in inspect(engine).get_columns("gpu_metrics")]
    assert names[:7] == [
        "time", "benchmark_id", "temperature", "memory_used", "memory_total", "utilization", "power_usage",
    ]  # fmt: skip
    indexes = {index["name"] for table in metadata.tables for index in inspect(engine).get_indexes(table)}
    assert {"idx_benchmark_model", "idx_inference_model"} <= indexes


def test_the_migrations_make_what_the_tables_are_written_as(url: str) -> None:
    """So a column that is added to a table and to no migration is found here."""
    engine = connect(url)
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        found = [change for change in compare_metadata(context, metadata) if not _unread(change)]
    assert found == []


def _unread(change: Any) -> bool:
    """SQLite's inspector doesn't tell that an index is in falling order."""
    return change[0] in ("add_index", "remove_index") and change[1].name == "idx_inference_model"


def test_they_can_be_undone(url: str) -> None:
    engine = connect(url)
    migrate(engine)
    prepare(engine)
    revert(engine, "base")
    assert tables(url) == {VERSION_TABLE}
    migrate(engine)
    assert "gpu_metrics" in tables(url)


def test_the_platforms_own_tables_stand_beside_them(url: str) -> None:
    engine = connect(url)
    database.create(engine)
    migrate(engine)
    database.create(engine)
    assert ApiKeys(engine).all() == []
    assert "gpu_metrics" in tables(url)


def _migrate(url: str) -> None:
    engine = connect(url)
    migrate(engine)
    prepare(engine)


def test_several_processes_may_begin_at_once(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_migrate, args=(url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert "gpu_metrics" in tables(url)


def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE inference_logs (in_the_way INTEGER)")
    with pytest.raises(Exception, match="inference_logs"):
        migrate(engine)
    assert tables(url) == {"inference_logs"}
