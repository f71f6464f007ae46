"""Recommendations, built from the settings."""

from __future__ import annotations

from maru.http.service import ServiceApp
from maru.platform import Platform, Room
from maru.services.recommend.assembly import Recommending
from maru.services.recommend.bundles import bundles_folder
from maru.services.recommend.declaration import service as recommend
from maru.services.recommend.service import Configuration as RecommendConfiguration
from maru.services.recommend.starter import Starter
from maru.storage.feedback import FeedbackStore


def build(platform: Platform) -> Room:
    """The service with its models and what runs beside its requests."""
    settings = platform.settings
    bundles, compiled = bundles_folder(settings.maru_home), settings.maru_home / "cache" / "numba"
    configuration = RecommendConfiguration(
        bundles=bundles,
        compiled=compiled,
        poll_s=settings.recommend_poll_s,
        candidate_share=settings.recommend_candidate_share,
        timeout_s=settings.request_timeout_s,
        sessions=settings.recommend_sessions,
    )
    events = settings.recommend_starter_events
    recommending = Recommending(
        platform.engine,
        configuration,
        FeedbackStore(platform.tables, settings.feedback_max_events),
        platform.telemetry.metrics.registry,
        starter=Starter(bundles, compiled, events) if events else None,
    )
    health = platform.health(recommending.recommendations.model)
    app = ServiceApp(
        recommend,
        recommending.routes(health),
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=platform.key_authenticator("recommend"),
        lifespan=platform.opened,
    )
    return Room(recommend, app, health, recommending.recommendations.start, recommending.opened)
