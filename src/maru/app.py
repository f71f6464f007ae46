"""Builds every service and mounts them. The one file that knows everyone."""

from __future__ import annotations

import sys
from functools import partial

from starlette.types import ASGIApp

from maru.http.gateway import Gateway
from maru.http.home import Home
from maru.http.oip import OpenInference
from maru.http.service import ServiceApp
from maru.http.standard_webhooks import key_of
from maru.platform import Plan, Platform, Room
from maru.runtimes.registry.open import Credentials, embedded, open_registry
from maru.runtimes.registry.types import Registry
from maru.services.embedding.declaration import service as embedding
from maru.services.embedding.routes import Routes as EmbeddingRoutes
from maru.services.embedding.service import Configuration as EmbeddingConfiguration
from maru.services.embedding.service import Embeddings
from maru.services.embedding.tensors import EmbeddingTensors
from maru.services.forecast.assembly import Forecasting
from maru.services.forecast.declaration import service as forecast
from maru.services.forecast.pickled import Host
from maru.services.forecast.service import Configuration as ForecastConfiguration
from maru.services.forecast.starter import plant
from maru.services.recommend.assembly import Recommending
from maru.services.recommend.bundles import bundles_folder
from maru.services.recommend.declaration import service as recommend
from maru.services.recommend.service import Configuration as RecommendConfiguration
from maru.services.recommend.starter import Starter
from maru.settings import ConfigurationError, Settings
from maru.storage.callbacks import Outbox
from maru.storage.feedback import FeedbackStore


def _embedding(platform: Platform) -> Room:
    settings = platform.settings
    configuration = EmbeddingConfiguration(
        home=settings.maru_home,
        model_name=settings.model_name,
        precision=settings.model_quantization,
        max_seq_length=settings.max_seq_length,
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        timeout_s=settings.request_timeout_s,
        hf_token=settings.hf_token,
        hf_endpoint=settings.hf_endpoint,
    )
    embeddings = Embeddings(platform.engine, configuration)
    health = platform.health(embeddings.model)
    oip = OpenInference(platform.engine, health, EmbeddingTensors(embeddings))
    app = ServiceApp(
        embedding,
        [*EmbeddingRoutes(embeddings).routes(), *health.routes(), *oip.routes()],
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=platform.authenticator("embedding"),
        limiter=platform.limiter(settings.rate_limit_per_min),
        lifespan=platform.opened,
    )
    return Room(embedding, app, health, embeddings.start)


def registry_of(settings: Settings) -> Registry:
    """The MLflow registry that is configured."""
    credentials = Credentials(
        settings.mlflow_tracking_token, settings.mlflow_tracking_username, settings.mlflow_tracking_password
    )
    try:
        return open_registry(
            settings.mlflow_tracking_uri, settings.maru_home, credentials if credentials.header() else None
        )
    except ValueError as error:
        raise ConfigurationError(f"MLFLOW_TRACKING_URI {error}") from None


def _forecast(platform: Platform) -> Room:
    settings = platform.settings
    configuration = ForecastConfiguration(
        name=settings.registered_model_name,
        alias=settings.model_alias,
        seq_len=settings.seq_len_required,
        n_features=settings.n_features_required,
        poll_s=settings.model_alias_poll_s,
        timeout_s=settings.request_timeout_s,
        pickled=Host(settings.forecast_python or sys.executable) if settings.allow_pickled_models else None,
    )
    registry = registry_of(settings)
    starter = partial(plant, registry, embedded(settings.maru_home), configuration.name, configuration.alias)
    hook_secret = settings.mlflow_webhook_secret
    forecasting = Forecasting(
        platform.engine,
        registry,
        configuration,
        Outbox(platform.tables),
        allowed_hosts=settings.allowed_fetch_hosts,
        callback_key=key_of(settings.callback_secret) if settings.callback_secret else None,
        hook_key=hook_secret.encode() if hook_secret else None,
        report=platform.telemetry.metrics.callback,
        seed=starter if settings.mlflow_tracking_uri is None else None,
    )
    health = platform.health(forecasting.forecasts.model)
    app = ServiceApp(
        forecast,
        forecasting.routes(health),
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=platform.key_authenticator("forecast"),
        lifespan=platform.opened,
    )
    return Room(forecast, app, health, forecasting.forecasts.start, forecasting.opened)


def _recommend(platform: Platform) -> Room:
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


SERVICES = {
    plan.service.name: plan
    for plan in (
        Plan(embedding, _embedding, takes_tokens=True),
        Plan(forecast, _forecast),
        Plan(recommend, _recommend),
    )
}
"""Every service of the platform."""


def alone(platform: Platform) -> ASGIApp:
    """The platform's one service at the root path, as its document has it."""
    (room,) = platform.rooms.values()
    return room.app


def together(platform: Platform) -> ASGIApp:
    """All services of the platform on one port, each under its name, and a home page that names them."""
    rooms = platform.rooms.values()
    health = platform.health(*(model for room in rooms for model in room.health.models))
    home = Home([room.service for room in rooms], health)
    app = ServiceApp(
        home.service, home.routes(), engine=platform.engine, report=platform.telemetry.http, lifespan=platform.opened
    )
    return Gateway({name: room.app for name, room in platform.rooms.items()}, app)
