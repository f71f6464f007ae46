"""The model that the first start has something to serve with."""

from __future__ import annotations

import logging
from pathlib import Path

from maru.runtimes.registry.publish import publish, registered
from maru.services.forecast.training.bundle import Bundle, starter

log = logging.getLogger(__name__)


def plant(registry: Path, name: str, alias: str) -> None:
    """Register the starter as `name` in the embedded registry in that folder, unless it has a model of that name.
    Blocks for some seconds in a new folder. BadBundle, RegistryError."""
    folder = starter()
    if folder is None or registered(registry, name):
        return
    bundle = Bundle.read(folder)
    version = publish(
        registry,
        name,
        bundle.onnx,
        seq_len=bundle.metadata["seq_len"],
        n_features=bundle.metadata["n_features"],
        metadata=bundle.metadata,
        params=bundle.params,
        metrics=bundle.metrics,
        experiment=name,
        alias=alias,
    )
    log.info("the starter model is registered", extra={"fields": {"model": f"{name}@{version.version}"}})
