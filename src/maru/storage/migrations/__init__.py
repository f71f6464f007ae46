"""Alembic's migrations of the benchmark tables. `maru.storage.migrate` runs them."""
