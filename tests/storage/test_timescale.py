"""TimescaleDB itself can't be had here: what is asked of it is looked at, and what stands in for it is run."""

from __future__ import annotations

import logging

import pytest

from maru.storage import timescale
from maru.storage.database import connect
from maru.storage.migrate import migrate
from maru.storage.timescale import Ability, prepare, statements

from .postgres import PostgresServer

COMMUNITY = Ability("postgresql", "2.21.0", "timescale")
APACHE = Ability("postgresql", "2.21.0", "apache")
PLAIN = Ability("postgresql")


def test_without_it_there_is_a_view_of_that_name(url: str) -> None:
    engine = connect(url)
    migrate(engine)
    ability = prepare(engine)
    assert not ability.hypertables and not ability.aggregates
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM gpu_metrics_1min").scalar() == 0


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
    monkeypatch.setattr(timescale, "_installed", lambda connection: COMMUNITY)
    monkeypatch.setattr(timescale, "_aggregated", lambda connection: False)
    with caplog.at_level(logging.WARNING):
        ability = prepare(engine)
    assert not ability.aggregates
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM gpu_metrics_1min").scalar() == 0
    assert "does without" in caplog.text
