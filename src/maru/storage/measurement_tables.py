"""The tables of benchmarks and of what is measured during them: document 004's, and columns of our own after its.

They are made by the migrations, in the database that TIMESCALE_URL names or in the platform's own.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from maru.storage import database
from maru.storage.database import Moment

metadata = MetaData(naming_convention=database.metadata.naming_convention)

_Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

gpu_metrics = Table(
    "gpu_metrics",
    metadata,
    Column("time", Moment, nullable=False),
    Column("benchmark_id", String(50)),
    Column("temperature", Float),
    Column("memory_used", BigInteger),
    Column("memory_total", BigInteger),
    Column("utilization", Float),
    Column("power_usage", Float),
    Column("gpu", Integer),
    Column("cpu_percent", Float),
    Column("host_memory_used", BigInteger),
    Column("host_memory_total", BigInteger),
    Index("idx_gpu_metrics_benchmark", "benchmark_id", "time"),
)
"""A row a sample and GPU; where there is none, one row a sample, whose `gpu` and figures of it are null."""

gpu_minutes = Table(
    "gpu_metrics_1min_parts",
    metadata,
    Column("bucket", Moment, primary_key=True),
    Column("benchmark_id", String(50), primary_key=True),
    *(Column(f"{name}_n", BigInteger, nullable=False) for name in ("temperature", "utilization", "power", "cpu")),
    *(Column(f"{name}_sum", Float, nullable=False) for name in ("temperature", "utilization", "power", "cpu")),
    Column("max_memory", BigInteger),
    Column("max_host_memory", BigInteger),
)
"""What the view `gpu_metrics_1min` is made of where the database keeps no continuous aggregate of that name."""

inference_logs = Table(
    "inference_logs",
    metadata,
    Column("time", Moment, nullable=False),
    Column("model_id", String(100)),
    Column("prompt_length", Integer),
    Column("generated_tokens", Integer),
    Column("tokens_per_second", Float),
    Column("time_to_first_token", Float),
    Column("total_time", Float),
    Index("idx_inference_model", "model_id", text("time DESC")),
)

benchmark_history = Table(
    "benchmark_history",
    metadata,
    Column("benchmark_id", String(50), primary_key=True),
    Column("model_id", String(100), nullable=False),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("avg_tokens_per_second", Float),
    Column("avg_time_to_first_token", Float),
    Column("memory_peak_bytes", BigInteger),
    Column("config", _Json),
    Column("results", _Json),
    Column("status", String(16), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("error", Text),
    Column("progress", _Json),
    Column("executor", String(64)),
    Column("lease_until", Moment),
    Column("cancelling", Boolean, nullable=False, server_default=text("false")),
    Index("idx_benchmark_model", "model_id"),
    Index("idx_benchmark_status", "status", "created_at"),
    Index(
        "uq_benchmark_history_running",
        "status",
        unique=True,
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
)
"""The last index lets one run be `running` at a time, whoever tries to start another."""

metrics_writers = Table(
    "metrics_writers",
    metadata,
    Column("writer", String(64), primary_key=True),
    Column("batch", BigInteger, nullable=False),
    Column("written", Moment, nullable=False),
)
"""The last batch that each writer has stored, so that one whose commit was not heard of is not stored twice."""
