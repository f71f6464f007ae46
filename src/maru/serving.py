"""Starting a server, and telling the person who did."""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Callable
from contextlib import closing

from rich.console import Console
from starlette.types import ASGIApp

from maru import examples
from maru.app import SERVICES, alone, together
from maru.auth.development import development_secret
from maru.auth.keys import EVERYTHING, mint
from maru.auth.secrets import check_secret
from maru.auth.token import issue
from maru.http.crowd import Bounds
from maru.http.server import serve
from maru.platform import Plan, Platform, Room, open_keys
from maru.settings import ConfigurationError, Settings
from maru.telemetry.logs import configure

EXAMPLE_TOKEN_S = 24 * 3600.0


class Serving:
    """One `maru up` or `maru serve`."""

    def __init__(self, settings: Settings, screen: Console) -> None:
        self._settings = settings
        self._screen = screen
        self._began = time.monotonic()
        self._key: str | None = None
        """The key that was made for this start."""

    def up(self, host: str, port: int, *, insecure: bool = False) -> int:
        """Serve everything on one port until told to stop; the exit status."""
        plans = list(SERVICES.values())
        self._check(host, insecure, tokens=True)  # a key for what they don't open is made below
        self._first_key()
        return self._run(plans, together, host, port, lambda name: f"/{name}")

    def alone(self, service: str, host: str, port: int | None, *, insecure: bool = False) -> int:
        """Serve one service at the root path until told to stop; the exit status."""
        plan = SERVICES[service]
        self._check(host, insecure, tokens=plan.takes_tokens)
        if plan.needs_key and not self._has_keys():
            self._first_key()
        return self._run([plan], alone, host, port or plan.service.port, lambda _: "")

    def _check(self, host: str, insecure: bool, *, tokens: bool) -> None:
        """Listening beyond this machine needs credentials that somebody chose. `tokens`: access tokens will do."""
        if insecure or _is_loopback(host):
            return
        s = self._settings
        if not ((tokens and (s.supabase_jwt_secret or s.supabase_url)) or self._has_keys()):
            which = "SUPABASE_JWT_SECRET, SUPABASE_URL or API_KEYS" if tokens else "API_KEYS"
            raise ConfigurationError(
                f"refusing to listen on {host} without credentials: set {which}, "
                "or make a key with `maru keys create`; --insecure listens all the same"
            )
        if s.supabase_jwt_secret:
            try:
                check_secret("SUPABASE_JWT_SECRET", s.supabase_jwt_secret)
            except ValueError as error:
                raise ConfigurationError(f"refusing to listen on {host}: {error}") from None

    def _has_keys(self) -> bool:
        s = self._settings
        return bool(s.api_keys or s.style_api_keys or open_keys(s).all())

    def _first_key(self) -> None:
        keys = open_keys(self._settings)
        if not keys.all():
            minted = mint(keys, "development", (EVERYTHING,), by=frozenset({EVERYTHING}))
            self._screen.print("A development API key, shown this once (only its hash is kept):")
            self._screen.print(f"  {minted.key}\n", soft_wrap=True)
            self._key = minted.key

    def _run(
        self,
        plans: list[Plan],
        mount: Callable[[Platform], ASGIApp],
        host: str,
        port: int,
        path_of: Callable[[str], str],
    ) -> int:
        settings = self._settings
        format = settings.log_format or ("text" if sys.stdout.isatty() else "json")
        with closing(configure("DEBUG" if settings.debug else "INFO", format)) as writer:
            platform = Platform(settings, plans, writer)
            base = f"http://{'localhost' if _is_loopback(host) else host}:{port}"
            with self._screen.status("loading models") as status:
                platform.when_loaded(status.stop)
                platform.when_loaded(lambda: self._announce(platform, base, path_of))
                platform.when_late(lambda name: self._announce_late(platform.rooms[name], base + path_of(name)))
                return serve(
                    mount(platform),
                    host=host,
                    port=port,
                    lifecycle_of=lambda: platform.engine.lifecycle,
                    grace_s=settings.drain_grace_s,
                    drain_delay_s=settings.drain_delay_s,
                    bounds=Bounds(max_connections=settings.max_connections),
                )

    def _announce(self, platform: Platform, base: str, path_of: Callable[[str], str]) -> None:
        """Say where everything is and how to ask."""
        say = self._screen.print
        say(f"\n[bold]Maru is ready[/bold] after {self._took():.1f} s at {base}")
        requests = []
        for name, room in platform.rooms.items():
            at = base + path_of(name)
            say(f"  {room.service.title:<22} {at}  (documentation: {at}/docs)", soft_wrap=True)
            if room.health.readiness().status != "ready":
                say(f"  {'':<22} is still getting its model: {at}/readyz", soft_wrap=True)
            elif request := self._example(room, at):
                requests.append(request)
        if requests:
            say("\nTry it:\n")
            for request in requests:
                say(request + "\n", soft_wrap=True, markup=False)

    def _announce_late(self, room: Room, at: str) -> None:
        """Say that one more service has its model."""
        say = self._screen.print
        say(f"\n[bold]{room.service.title} is ready[/bold] after {self._took():.1f} s at {at}", soft_wrap=True)
        if request := self._example(room, at):
            say(f"\n{request}\n", soft_wrap=True, markup=False)

    def _took(self) -> float:
        return time.monotonic() - self._began

    def _example(self, room: Room, at: str) -> str | None:
        """A request to the service, if credentials for it are known here."""
        settings = self._settings
        if room.service.name == "embedding":
            if settings.supabase_jwt_secret or settings.supabase_url:
                return None
            return examples.embedding(at, issue(development_secret(settings.maru_home), "developer", EXAMPLE_TOKEN_S))
        if room.app.authenticator is not None and self._key is None:
            return None
        if room.service.name == "forecast":
            return examples.forecast(at, self._key, settings.seq_len_required, settings.n_features_required)
        if room.service.name == "recommend":
            return examples.recommend(at, self._key)
        if room.service.name == "style":
            return examples.style(at, self._key) if self._key else None
        return examples.ai(at, self._key)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
