"""Which registry to use."""

from __future__ import annotations

from pathlib import Path

from maru.runtimes.registry.local import LocalRegistry
from maru.runtimes.registry.rest import Credentials, RestRegistry
from maru.runtimes.registry.types import Registry

__all__ = ["Credentials", "embedded", "open_registry"]


def embedded(home: Path) -> Path:
    """The folder of the embedded registry."""
    return home / "registry"


def open_registry(tracking_uri: str | None, home: Path, credentials: Credentials | None = None) -> Registry:
    """The registry on the MLflow server at `tracking_uri` (http, https), in the database it names (`sqlite:///…`,
    `postgresql://…`), or the embedded one under `home` when it is None. Nothing is connected or created yet.

    ValueError, in one line without the URI, for a `tracking_uri` that is none of those.
    """
    if tracking_uri is None:
        return LocalRegistry(embedded(home))
    scheme = tracking_uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return RestRegistry(tracking_uri, credentials or Credentials())
    if scheme.partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        return LocalRegistry(tracking_uri)
    raise ValueError("must be the http or https URL of an MLflow server, or the URL of MLflow's database")
