"""What a database can do with time series, and what stands in for what it can't."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

log = logging.getLogger(__name__)

KEEP_DAYS = 90
COMPRESS_AFTER_DAYS = 7
HYPERTABLES = ("gpu_metrics", "inference_logs")

_VIEW = """VIEW gpu_metrics_1min AS SELECT bucket, benchmark_id,
  temperature_sum / NULLIF(temperature_n, 0) AS avg_temperature,
  max_memory,
  utilization_sum / NULLIF(utilization_n, 0) AS avg_utilization,
  power_sum / NULLIF(power_n, 0) AS avg_power,
  cpu_sum / NULLIF(cpu_n, 0) AS avg_cpu,
  max_host_memory
FROM gpu_metrics_1min_parts"""

_AGGREGATE = """CREATE MATERIALIZED VIEW gpu_metrics_1min
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT time_bucket('1 minute', time) AS bucket, benchmark_id,
  AVG(temperature) AS avg_temperature,
  MAX(memory_used) AS max_memory,
  AVG(utilization) AS avg_utilization,
  AVG(power_usage) AS avg_power,
  AVG(cpu_percent) AS avg_cpu,
  MAX(host_memory_used) AS max_host_memory
FROM gpu_metrics GROUP BY 1, 2"""


@dataclass(frozen=True, slots=True)
class Ability:
    """What the database is. `timescale` is the extension's version where it is installed.

    Its `licence` is `timescale` where continuous aggregates, compression and policies come with it, and
    `apache` where only hypertables do.
    """

    dialect: str
    timescale: str | None = None
    licence: str | None = None

    @property
    def hypertables(self) -> bool:
        return self.timescale is not None

    @property
    def aggregates(self) -> bool:
        return self.hypertables and self.licence == "timescale"


def prepare(engine: Engine) -> Ability:
    """After the migrations: make of the tables what the database can, and say what it can. Again does nothing."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql(_VIEW.replace("VIEW", "CREATE VIEW IF NOT EXISTS", 1))
        return Ability("sqlite")
    ability = _installed(engine)
    with _alone(engine) as connection:
        for statement in statements(ability, aggregated=ability.aggregates and _aggregated(connection)):
            _try(connection, statement)
        if ability.aggregates and not _aggregated(connection):
            log.warning("TimescaleDB keeps no aggregate here; the minutes are added up by us")
            ability = Ability(ability.dialect, ability.timescale, None)
            connection.exec_driver_sql(f"CREATE OR REPLACE {_VIEW}")
    return ability


def statements(ability: Ability, *, aggregated: bool) -> Sequence[str]:
    """What is to be run on a PostgreSQL of that ability. `aggregated`: the continuous aggregate is there."""
    if not ability.aggregates:
        view = f"CREATE OR REPLACE {_VIEW}"
        return [*_hypertables(), view] if ability.hypertables else [view]
    made = () if aggregated else ("DROP VIEW IF EXISTS gpu_metrics_1min", _AGGREGATE)
    return [
        *_hypertables(),
        *made,
        "SELECT add_continuous_aggregate_policy('gpu_metrics_1min', start_offset => INTERVAL '3 hours', "
        "end_offset => INTERVAL '1 minute', schedule_interval => INTERVAL '1 minute', if_not_exists => true)",
        "ALTER TABLE gpu_metrics SET (timescaledb.compress, timescaledb.compress_segmentby = 'benchmark_id')",
        "ALTER TABLE inference_logs SET (timescaledb.compress, timescaledb.compress_segmentby = 'model_id')",
        *(
            f"SELECT {policy}('{table}', INTERVAL '{days} days', if_not_exists => true)"
            for table in HYPERTABLES
            for policy, days in (("add_compression_policy", COMPRESS_AFTER_DAYS), ("add_retention_policy", KEEP_DAYS))
        ),
    ]


def _hypertables() -> list[str]:
    return [
        f"SELECT create_hypertable('{table}', 'time', if_not_exists => true, migrate_data => true)"
        for table in HYPERTABLES
    ]


def _alone(engine: Engine) -> Connection:
    """A connection whose statements are in no transaction, as some of TimescaleDB's must be."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _installed(engine: Engine) -> Ability:
    """TimescaleDB is taken into use where it is there to be had and we may."""
    with _alone(engine) as connection:
        available = connection.execute(
            text("SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'timescaledb'")
        ).scalar()
    if available is None:
        return Ability("postgresql")
    if not available:
        with _alone(engine) as connection:  # which the server ends where TimescaleDB is not preloaded
            if not _try(connection, "CREATE EXTENSION IF NOT EXISTS timescaledb"):
                return Ability("postgresql")
    with _alone(engine) as connection:
        version = connection.execute(text("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")).scalar()
        licence = connection.execute(text("SELECT current_setting('timescaledb.license', true)")).scalar()
    return Ability("postgresql", version, licence)


def _aggregated(connection: Connection) -> bool:
    known = "SELECT count(*) FROM timescaledb_information.continuous_aggregates WHERE view_name = 'gpu_metrics_1min'"
    return bool(connection.execute(text(known)).scalar())


def _try(connection: Connection, statement: str) -> bool:
    """What one version or one role can't do, the others do without."""
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        log.warning("the database does without: %s (%s)", statement.split("(")[0][:60].strip(), type(error).__name__)
        return False
    return True
