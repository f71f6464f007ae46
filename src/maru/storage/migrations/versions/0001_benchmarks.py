"""The benchmark tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "gpu_metrics",
        sa.Column("time", _MOMENT, nullable=False),
        sa.Column("benchmark_id", sa.String(50)),
        sa.Column("temperature", sa.Float),
        sa.Column("memory_used", sa.BigInteger),
        sa.Column("memory_total", sa.BigInteger),
        sa.Column("utilization", sa.Float),
        sa.Column("power_usage", sa.Float),
        sa.Column("gpu", sa.Integer),
        sa.Column("cpu_percent", sa.Float),
        sa.Column("host_memory_used", sa.BigInteger),
        sa.Column("host_memory_total", sa.BigInteger),
    )
    op.create_index("idx_gpu_metrics_benchmark", "gpu_metrics", ["benchmark_id", "time"])
    figures = ("temperature", "utilization", "power", "cpu")
    op.create_table(
        "gpu_metrics_1min_parts",
        sa.Column("bucket", _MOMENT, nullable=False),
        sa.Column("benchmark_id", sa.String(50), nullable=False),
        *(sa.Column(f"{name}_n", sa.BigInteger, nullable=False) for name in figures),
        *(sa.Column(f"{name}_sum", sa.Float, nullable=False) for name in figures),
        sa.Column("max_memory", sa.BigInteger),
        sa.Column("max_host_memory", sa.BigInteger),
        sa.PrimaryKeyConstraint("bucket", "benchmark_id", name="pk_gpu_metrics_1min_parts"),
    )
    op.create_table(
        "inference_logs",
        sa.Column("time", _MOMENT, nullable=False),
        sa.Column("model_id", sa.String(100)),
        sa.Column("prompt_length", sa.Integer),
        sa.Column("generated_tokens", sa.Integer),
        sa.Column("tokens_per_second", sa.Float),
        sa.Column("time_to_first_token", sa.Float),
        sa.Column("total_time", sa.Float),
    )
    op.create_index("idx_inference_model", "inference_logs", ["model_id", sa.text("time DESC")])
    op.create_table(
        "benchmark_history",
        sa.Column("benchmark_id", sa.String(50), nullable=False),
        sa.Column("model_id", sa.String(100), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("avg_tokens_per_second", sa.Float),
        sa.Column("avg_time_to_first_token", sa.Float),
        sa.Column("memory_peak_bytes", sa.BigInteger),
        sa.Column("config", _JSON),
        sa.Column("results", _JSON),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("error", sa.Text),
        sa.Column("progress", _JSON),
        sa.Column("executor", sa.String(64)),
        sa.Column("lease_until", _MOMENT),
        sa.Column("cancelling", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("benchmark_id", name="pk_benchmark_history"),
    )
    op.create_index("idx_benchmark_model", "benchmark_history", ["model_id"])
    op.create_index("idx_benchmark_status", "benchmark_history", ["status", "created_at"])
    op.create_index(
        "uq_benchmark_history_running",
        "benchmark_history",
        ["status"],
        unique=True,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "metrics_writers",
        sa.Column("writer", sa.String(64), nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("written", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_metrics_writers"),
    )


def downgrade() -> None:
    # What shows the tables goes before them: a view of ours, or an aggregate of TimescaleDB.
    op.execute(f"DROP {'MATERIALIZED ' * _aggregated()}VIEW IF EXISTS gpu_metrics_1min")
    for name in ("metrics_writers", "benchmark_history", "inference_logs", "gpu_metrics_1min_parts", "gpu_metrics"):
        op.drop_table(name)


def _aggregated() -> bool:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return False
    if connection.scalar(sa.text("SELECT to_regclass('timescaledb_information.continuous_aggregates')")) is None:
        return False
    known = "SELECT count(*) FROM timescaledb_information.continuous_aggregates WHERE view_name = 'gpu_metrics_1min'"
    return bool(connection.scalar(sa.text(known)))
