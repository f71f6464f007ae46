"""Furniture styles, built from the settings."""

from __future__ import annotations

from maru.auth.keys import KeyAuthenticator
from maru.http.service import ServiceApp
from maru.platform import Platform, Room
from maru.services.style.assembly import Styling
from maru.services.style.declaration import service
from maru.services.style.model import NAME
from maru.services.style.service import Configuration


def build(platform: Platform) -> Room:
    """The service with its models and what runs beside its requests. Its document has it want a key always."""
    settings = platform.settings
    configuration = Configuration(
        settings.maru_home,
        model=settings.style_model,
        max_concurrent=settings.style_max_concurrent,
        queue_size=settings.style_queue_size,
        timeout_s=settings.request_timeout_s,
    )
    styling = Styling(
        platform.engine, configuration, platform.telemetry.host.sample, allowed_hosts=settings.allowed_fetch_hosts
    )
    health = platform.health(NAME)
    keys = settings.api_keys | settings.style_api_keys
    app = ServiceApp(
        service,
        styling.routes(health),
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=KeyAuthenticator(platform.keyring, needs=(service.name,), plain=keys),
        lifespan=platform.opened,
    )
    return Room(service, app, health, styling.styles.start, styling.opened)
