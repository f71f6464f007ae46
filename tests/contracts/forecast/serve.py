"""A forecast server over a folder registry: `python serve.py PORT FOLDER SETTINGS`, the settings as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contracts.alone import alone
from tests.contracts.forecast.folder_registry import FolderRegistry, Shelf

from maru.http.standard_webhooks import key_of
from maru.runtimes.registry.open import open_registry
from maru.runtimes.registry.types import Registry
from maru.services.forecast.assembly import Forecasting
from maru.services.forecast.callbacks import Pace
from maru.services.forecast.configuration import Configuration
from maru.services.forecast.declaration import service
from maru.storage import database
from maru.storage.callbacks import Outbox


def registry_of(settings: dict[str, Any], folder: Path) -> Registry:
    if "tracking_uri" in settings:  # None for the embedded one
        return open_registry(settings["tracking_uri"], folder)
    return FolderRegistry(Shelf(folder / "registry"))


def main() -> int:
    with alone() as process:
        settings, folder = process.settings, process.folder
        tables = database.connect(f"sqlite:///{folder / 'maru.db'}")
        database.create(tables)
        forecasting = Forecasting(
            process.engine,
            registry_of(settings, folder),
            Configuration(**settings.get("configuration", {})),
            Outbox(tables, most=settings.get("most", 10_000)),
            allowed_hosts=settings.get("allowed_hosts", ()),
            callback_key=key_of(settings["callback_secret"]) if "callback_secret" in settings else None,
            hook_key=settings["hook_secret"].encode() if "hook_secret" in settings else None,
            pace=Pace(**settings.get("pace", {})),
        )
        forecasts = forecasting.forecasts
        routes = forecasting.routes(process.health(forecasts.model))
        return process.serve(service, routes, forecasting.opened, forecasts.start, process.authenticator("forecast"))


if __name__ == "__main__":
    raise SystemExit(main())
