"""The command line: `maru --help`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from maru import __version__
from maru.commands import bench, keys, models, train
from maru.commands.screen import fail, screen
from maru.settings import ConfigurationError, Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it shows the values of variables
    help="One serving engine under every model.",
)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")
app.add_typer(bench.app, name="bench")

Host = Annotated[str, typer.Option(help="The address to listen on.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without credentials.")]


def main() -> None:
    """The `maru` command. Every error that a person can mend is one line."""
    with _told():
        app()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        fail(str(error))


@app.command()
def up(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of everything.")] = 8000,
    insecure: Insecure = False,
) -> None:
    """Serve everything on one port, on embedded defaults."""
    from maru.serving import Serving

    raise SystemExit(Serving(Settings.read(), screen).up(host, port, insecure=insecure))


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="The service: embedding, forecast, recommend, style, ai.")],
    host: Host = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: its document's own.")] = None,
    insecure: Insecure = False,
) -> None:
    """Serve one service at the root path, a drop-in for its document."""
    from maru.app import SERVICES
    from maru.serving import Serving

    if service not in SERVICES:
        fail(f"no service is called {service}; there are: {', '.join(SERVICES)}")
    raise SystemExit(Serving(Settings.read(), screen).alone(service, host, port, insecure=insecure))


@app.command()
def token(
    sub: Annotated[str, typer.Option(help="The user that the token is for.")] = "developer",
    life: Annotated[float, typer.Option(help="Hours until it expires.")] = 1.0,
    secret: Annotated[str | None, typer.Option(help="Default: SUPABASE_JWT_SECRET, or this home's own.")] = None,
) -> None:
    """Print a development access token, as signing in to Supabase would give."""
    from maru.auth.development import development_secret
    from maru.auth.token import issue

    settings = Settings.read()
    known = secret or settings.supabase_jwt_secret or development_secret(settings.maru_home)
    issuer = f"{settings.supabase_url.rstrip('/')}/auth/v1" if settings.supabase_url else None
    try:
        print(issue(known, sub, life * 3600, issuer=issuer))  # noqa: T201
    except ValueError as error:
        fail(str(error))


@app.command()
def migrate() -> None:
    """Bring the database to this version's shape. A start does it, too; this is for who must do it beforehand."""
    from maru.platform import connected, open_tables
    from maru.storage.migrate import migrate as migrated

    settings = Settings.read()
    tables, url = open_tables(settings), settings.timescale_url
    migrated(connected("TIMESCALE_URL", url) if url else tables)


@app.command()
def settings() -> None:
    """Print every setting, with its default, as a Markdown table."""
    print(Settings.table())  # noqa: T201


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)  # noqa: T201
