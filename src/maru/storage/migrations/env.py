"""Run by Alembic, on the connection and in the transaction of `maru.storage.migrate`."""

from __future__ import annotations

from alembic import context

from maru.storage.measurement_tables import metadata
from maru.storage.migrate import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
