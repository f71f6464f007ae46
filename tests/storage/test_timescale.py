"""What is asked of TimescaleDB, what it makes of that where there is one, and what stands in for it elsewhere.

Debian has no TimescaleDB: the tests of a real one are for a machine where it was built from its source.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from maru.storage import timescale as storage
from maru.storage.database import connect
from maru.storage.measurements import MachineRow, Measurements
from maru.storage.migrate import migrate
from maru.storage.timescale import Ability, prepare, statements

from .postgres import TIMESCALE, PostgresServer, has_timescale

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

COMMUNITY = Ability("postgresql", "2.21.0", "timescale")
APACHE = Ability("postgresql", "2.21.0", "apache")
PLAIN = Ability("postgresql")


def test_there_is_a_view_of_that_name(url: str) -> None:
    engine = connect(url)
    migrate(engine)
    first = prepare(engine)
    assert prepare(engine) == first, "which was done, and does nothing"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM gpu_metrics_1min").scalar() == 0


def test_a_postgresql_without_it_knows(postgres: PostgresServer) -> None:
    """Also one that has it installed and not preloaded, which ends the connection that asks for it."""
    engine = connect(postgres.database())
    migrate(engine)
    assert prepare(engine) == Ability("postgresql")


def test_all_of_it_is_used_where_the_licence_allows() -> None:
    asked = "\n".join(statements(COMMUNITY, aggregated=False))
    for feature in (
        "create_hypertable('gpu_metrics'", "create_hypertable('inference_logs'", "timescaledb.continuous",
        "time_bucket('1 minute'", "add_continuous_aggregate_policy", "timescaledb.compress", "add_compression_policy",
        "add_retention_policy",
    ):  # fmt: skip
        assert feature in asked, feature
    assert asked.index("DROP VIEW IF EXISTS gpu_metrics_1min") < asked.index("CREATE MATERIALIZED VIEW")


def test_an_aggregate_that_is_there_is_left_alone() -> None:
    asked = "\n".join(statements(COMMUNITY, aggregated=True))
    assert "DROP VIEW" not in asked and "CREATE MATERIALIZED VIEW" not in asked
    assert "if_not_exists" in asked


def test_under_the_apache_licence_only_hypertables_are_asked_for() -> None:
    asked = "\n".join(statements(APACHE, aggregated=False))
    assert "create_hypertable" in asked and "CREATE OR REPLACE VIEW gpu_metrics_1min" in asked
    for feature in ("MATERIALIZED", "compress", "policy"):
        assert feature not in asked


def test_both_kinds_of_view_have_the_same_columns() -> None:
    view = next(each for each in statements(PLAIN, aggregated=False) if "VIEW" in each)
    aggregate = next(each for each in statements(COMMUNITY, aggregated=False) if "MATERIALIZED" in each)
    for column in (
        "bucket",
        "avg_temperature",
        "max_memory",
        "avg_utilization",
        "avg_power",
        "avg_cpu",
        "max_host_memory",
    ):
        assert column in view and column in aggregate


def test_a_timescale_that_refuses_leaves_a_database_that_works(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does that is installed and not preloaded, or is too old for what is asked."""
    engine = connect(postgres.database())
    migrate(engine)
    monkeypatch.setattr(storage, "_installed", lambda engine: COMMUNITY)
    monkeypatch.setattr(storage, "_aggregated", lambda connection: False)
    with caplog.at_level(logging.WARNING):
        ability = prepare(engine)
    assert not ability.aggregates
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM gpu_metrics_1min").scalar() == 0
    assert "does without" in caplog.text


real = pytest.mark.skipif(not has_timescale(), reason="there is no TimescaleDB here")


def jobs(engine: Engine, table: str) -> dict[str, int]:
    """The policies of a table, and their jobs' numbers."""
    asked = text("SELECT proc_name, job_id FROM timescaledb_information.jobs WHERE hypertable_name = :table")
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(asked, {"table": table})}


def rows(first: datetime, count: int, every_s: float = 1.0) -> list[MachineRow]:
    return [
        MachineRow(first + timedelta(seconds=n * every_s), "b1", temperature=40.0 + n % 7, memory_used=n)
        for n in range(count)
    ]


@real
def test_a_real_one_keeps_all_that_was_asked(timescale: PostgresServer) -> None:
    engine = connect(timescale.database())
    migrate(engine)
    ability = prepare(engine)
    assert ability.hypertables and ability.aggregates and ability.timescale
    for table in ("gpu_metrics", "inference_logs"):
        assert {"policy_compression", "policy_retention"} <= jobs(engine, table).keys()


@real
def test_its_minutes_are_the_same_before_and_after_they_were_materialized(timescale: PostgresServer) -> None:
    engine = connect(timescale.database())
    migrate(engine)
    store = Measurements(engine, prepare(engine))
    store.write(rows(NOON, 300), "w", 1, NOON)
    fresh = store.minutes("b1")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CALL refresh_continuous_aggregate('gpu_metrics_1min', NULL, NULL)")
    assert len(fresh) == 5 and store.minutes("b1") == fresh
    assert [minute.max_memory for minute in fresh] == [59, 119, 179, 239, 299]


@real
def test_what_it_compressed_is_read_and_added_to(timescale: PostgresServer) -> None:
    engine = connect(timescale.database())
    migrate(engine)
    store = Measurements(engine, prepare(engine))
    store.write(rows(NOON, 120), "w", 1, NOON)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(compress_chunk(c)) FROM show_chunks('gpu_metrics') c").scalar()
    later = rows(NOON + timedelta(seconds=120), 60)
    store.write(later, "w", 2, NOON)
    assert store.samples("b1") == rows(NOON, 120) + later
    assert [minute.max_memory for minute in store.minutes("b1")] == [59, 119, 59]


@real
def test_it_forgets_by_itself(timescale: PostgresServer) -> None:
    engine = connect(timescale.database())
    migrate(engine)
    store = Measurements(engine, prepare(engine))
    now = datetime.now(UTC).replace(microsecond=0)
    store.write([*rows(now - timedelta(days=120), 10), *rows(now, 10)], "w", 1, now)
    job = jobs(engine, "gpu_metrics")["policy_retention"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CALL run_job({job})")
    assert store.samples("b1") == rows(now, 10)


@real
def test_a_database_that_gets_it_later_keeps_what_it_has(
    timescale: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(timescale.database())
    migrate(engine)
    with monkeypatch.context() as before:
        before.setattr(storage, "_installed", lambda engine: PLAIN)
        store = Measurements(engine, prepare(engine))
    store.write(rows(NOON, 150), "w", 1, NOON)
    known = store.minutes("b1")
    later = Measurements(engine, prepare(engine))
    assert later.samples("b1") == rows(NOON, 150) and later.minutes("b1") == known
    later.write(rows(NOON + timedelta(seconds=150), 30), "w", 2, NOON)
    assert [minute.max_memory for minute in later.minutes("b1")] == [59, 119, 149]


@real
def test_under_its_apache_licence_there_are_hypertables_and_our_own_minutes() -> None:
    with PostgresServer(**TIMESCALE, **{"timescaledb.license": "apache"}) as server:
        engine = connect(server.database())
        migrate(engine)
        ability = prepare(engine)
        store = Measurements(engine, ability)
        store.write(rows(NOON, 90), "w", 1, NOON)
        assert ability.hypertables and not ability.aggregates
        assert [minute.max_memory for minute in store.minutes("b1")] == [59, 89]
        engine.dispose()
