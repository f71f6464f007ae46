"""The model that the first start has something to serve with."""

from __future__ import annotations

import logging
from pathlib import Path

from maru.runtimes.registry.publish import registered
from maru.services.forecast.training.bundle import Bundle, starter

log = logging.getLogger(__name__)


def plant(registry: Path, name: str, alias: str) -> None:
    """Register the starter as `name` in the embedded registry in that folder, unless it has a model of that name.
    Blocks for some seconds in a new folder. BadBundle, RegistryError."""
    folder = starter()
    if folder is None or registered(registry, name):
        return
    version = Bundle.read(folder).register(registry, name, alias)
    log.info("the starter model is registered", extra={"fields": {"model": f"{name}@{version.version}"}})
