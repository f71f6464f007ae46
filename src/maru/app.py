"""Every service of the platform, and how they are mounted."""

from __future__ import annotations

from importlib import import_module

from starlette.types import ASGIApp

from maru.http.gateway import Gateway
from maru.http.health import CommonHealth
from maru.http.home import Home
from maru.http.service import Service, ServiceApp
from maru.platform import Plan, Platform, Room
from maru.services.embedding.declaration import service as embedding
from maru.services.forecast.declaration import service as forecast
from maru.services.llm.declaration import service as ai
from maru.services.recommend.declaration import service as recommend
from maru.services.style.declaration import service as style


def _plan(service: Service, *, takes_tokens: bool = False, needs_key: bool = False) -> Plan:
    """What a service needs is imported when it is built: one alone has not the libraries of the others in memory."""

    def build(platform: Platform) -> Room:
        room: Room = import_module(f"maru.rooms.{service.name}").build(platform)
        return room

    return Plan(service, build, takes_tokens, needs_key)


_PLANS = (
    _plan(embedding, takes_tokens=True),
    _plan(forecast),
    _plan(recommend),
    _plan(style, needs_key=True),
    _plan(ai),
)
SERVICES = {plan.service.name: plan for plan in _PLANS}
"""Every service of the platform."""


def alone(platform: Platform) -> ASGIApp:
    """The platform's one service at the root path, as its document has it."""
    (room,) = platform.rooms.values()
    return room.app


def together(platform: Platform) -> ASGIApp:
    """All services of the platform on one port, each under its name, and a home page that names them."""
    rooms = platform.rooms.values()
    parts = tuple(room.health for room in rooms)
    health = CommonHealth(platform.engine, (), platform.telemetry.metrics.render, parts)
    home = Home([room.service for room in rooms], health)
    app = ServiceApp(
        home.service, home.routes(), engine=platform.engine, report=platform.telemetry.http, lifespan=platform.opened
    )
    return Gateway({name: room.app for name, room in platform.rooms.items()}, app)
