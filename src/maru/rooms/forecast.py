"""Forecasts, built from the settings."""

from __future__ import annotations

import sys
from functools import partial

from maru.http.service import ServiceApp
from maru.http.standard_webhooks import key_of
from maru.platform import Platform, Room
from maru.rooms.registry import registry_of
from maru.runtimes.registry.open import embedded
from maru.services.forecast.assembly import Forecasting
from maru.services.forecast.configuration import Configuration as ForecastConfiguration
from maru.services.forecast.declaration import service as forecast
from maru.services.forecast.pickled import Host
from maru.services.forecast.starter import plant
from maru.storage.callbacks import Outbox


def build(platform: Platform) -> Room:
    """The service with its models and what runs beside its requests."""
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
