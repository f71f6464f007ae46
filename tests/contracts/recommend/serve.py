"""A recommendation server over a folder of bundles: `python serve.py PORT FOLDER SETTINGS`, the settings as JSON."""

from __future__ import annotations

from pathlib import Path

from tests.contracts.alone import alone

from maru.services.recommend.assembly import Recommending
from maru.services.recommend.declaration import service
from maru.services.recommend.service import Configuration
from maru.services.recommend.starter import Starter
from maru.storage import database
from maru.storage.feedback import FeedbackStore
from maru.telemetry.document_metrics import Documented


def main() -> int:
    with alone(documented=[Documented(service.name, service.metric_prefix, service.documented)]) as process:
        settings, folder = process.settings, process.folder
        tables = database.connect(f"sqlite:///{folder / 'maru.db'}")
        database.create(tables)
        bundles, compiled = folder / "recommend", Path(settings["compiled"])
        recommending = Recommending(
            process.engine,
            Configuration(bundles, compiled, **settings.get("configuration", {})),
            FeedbackStore(tables, settings.get("most", 100_000)),
            process.telemetry.metrics.registry,
            starter=Starter(bundles, compiled, settings["starter"]) if "starter" in settings else None,
        )
        recommendations = recommending.recommendations
        routes = recommending.routes(process.health(recommendations.model))
        authenticator = process.authenticator("recommend")
        return process.serve(service, routes, recommending.opened, recommendations.start, authenticator)


if __name__ == "__main__":
    raise SystemExit(main())
