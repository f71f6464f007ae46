"""Starting a server, and telling the person who did."""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Callable
from contextlib import closing

from rich.console import Console
from starlette.types import ASGIApp

from maru.app import SERVICES, Platform, alone, open_keys, together
from maru.auth.development import development_secret
from maru.auth.keys import EVERYTHING, mint
from maru.auth.secrets import check_secret
from maru.auth.token import issue
from maru.http.crowd import Bounds
from maru.http.server import serve
from maru.settings import ConfigurationError, Settings
from maru.telemetry.logs import configure

EXAMPLE_TOKEN_S = 24 * 3600.0


class Serving:
    """One `maru up` or `maru serve`."""

    def __init__(self, settings: Settings, screen: Console) -> None:
        self._settings = settings
        self._screen = screen
        self._began = time.monotonic()

    def up(self, host: str, port: int, *, insecure: bool = False) -> int:
        """Serve everything on one port until told to stop; the exit status."""
        self._check(host, insecure)
        self._first_key()
        return self._run(list(SERVICES), together, host, port, lambda name: f"/{name}")

    def alone(self, service: str, host: str, port: int | None, *, insecure: bool = False) -> int:
        """Serve one service at the root path until told to stop; the exit status."""
        self._check(host, insecure)
        return self._run([service], alone, host, port or SERVICES[service].service.port, lambda _: "")

    def _check(self, host: str, insecure: bool) -> None:
        """Listening beyond this machine needs credentials that somebody chose."""
        if insecure or _is_loopback(host):
            return
        s = self._settings
        if not (s.supabase_jwt_secret or s.supabase_url or s.api_keys or open_keys(s).all()):
            raise ConfigurationError(
                f"refusing to listen on {host} without credentials: set SUPABASE_JWT_SECRET, SUPABASE_URL or API_KEYS, "
                "or make a key with `maru keys create`; --insecure listens all the same"
            )
        if s.supabase_jwt_secret:
            try:
                check_secret("SUPABASE_JWT_SECRET", s.supabase_jwt_secret)
            except ValueError as error:
                raise ConfigurationError(f"refusing to listen on {host}: {error}") from None

    def _first_key(self) -> None:
        keys = open_keys(self._settings)
        if not keys.all():
            minted = mint(keys, "development", (EVERYTHING,), by=frozenset({EVERYTHING}))
            self._screen.print("A development API key, shown this once (only its hash is kept):")
            self._screen.print(f"  {minted.key}\n", soft_wrap=True)

    def _run(
        self,
        names: list[str],
        mount: Callable[[Platform], ASGIApp],
        host: str,
        port: int,
        path_of: Callable[[str], str],
    ) -> int:
        settings = self._settings
        format = settings.log_format or ("text" if sys.stdout.isatty() else "json")
        with closing(configure("DEBUG" if settings.debug else "INFO", format)) as writer:
            platform = Platform(settings, names, writer)
            base = f"http://{'localhost' if _is_loopback(host) else host}:{port}"
            with self._screen.status("loading models") as status:
                platform.when_loaded(status.stop)
                platform.when_loaded(lambda: self._announce(platform, base, path_of))
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
        took = time.monotonic() - self._began
        say = self._screen.print
        say(f"\n[bold]Maru is ready[/bold] after {took:.1f} s at {base}")
        for name, room in platform.rooms.items():
            at = base + path_of(name)
            say(f"  {room.service.title:<16} {at}  (documentation: {at}/docs)", soft_wrap=True)
        example = self._example(platform)
        if "embedding" in platform.rooms and example:
            at = base + path_of("embedding")
            say("\nTry it:\n", soft_wrap=True)
            say(
                f"curl {at}/embed -H 'Authorization: Bearer {example}' "
                "-H 'Content-Type: application/json' -d '{\"text\": \"안녕하세요, 반갑습니다!\"}'\n",
                soft_wrap=True,
                markup=False,
            )

    def _example(self, platform: Platform) -> str | None:
        """A token that works now, on a server that has no project of its own to issue them."""
        if self._settings.supabase_jwt_secret or self._settings.supabase_url:
            return None
        return issue(development_secret(self._settings.maru_home), "developer", EXAMPLE_TOKEN_S)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
