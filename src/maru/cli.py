"""The command line: `maru --help`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from maru import __version__
from maru.settings import ConfigurationError, Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it shows the values of variables
    help="One serving engine under every model.",
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: made once, shown once, stored hashed.")
models_app = typer.Typer(no_args_is_help=True, help="Models on this machine.")
app.add_typer(keys_app, name="keys")
app.add_typer(models_app, name="models")
screen = Console(stderr=True, highlight=False)

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
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    screen.print(f"maru: {message}", style="bold red", soft_wrap=True)
    raise SystemExit(2)


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
    service: Annotated[str, typer.Argument(help="The service: embedding.")],
    host: Host = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: its document's own.")] = None,
    insecure: Insecure = False,
) -> None:
    """Serve one service at the root path, a drop-in for its document."""
    from maru.app import SERVICES
    from maru.serving import Serving

    if service not in SERVICES:
        _fail(f"no service is called {service}; there are: {', '.join(SERVICES)}")
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
        _fail(str(error))


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is. Keys of one name share limits and results.")],
    scope: Annotated[list[str] | None, typer.Option(help="A service it may use, repeatable. Default: all.")] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires; default: never.")] = None,
    weight: Annotated[float, typer.Option(help="Its share of a busy model beside other callers.")] = 1.0,
) -> None:
    """Make a key and print it. It is not stored and can't be shown again."""
    from maru.app import open_keys
    from maru.auth.keys import EVERYTHING, mint

    life = timedelta(days=days) if days is not None else None
    try:
        everything = frozenset({EVERYTHING})
        minted = mint(open_keys(Settings.read()), name, scope or everything, by=everything, weight=weight, life=life)
    except ValueError as error:
        _fail(str(error))
    print(minted.key)  # noqa: T201


@keys_app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """The keys that were made, without their secrets."""
    from maru.app import open_keys

    rows = [_key_row(key) for key in open_keys(Settings.read()).all()]
    if as_json:
        print(json.dumps(rows))  # noqa: T201
        return
    table = Table("id", "name", "scopes", "created", "expires", "revoked", "last used", box=None)
    for row in rows:
        table.add_row(*(str(value or "") for value in row.values()))
    Console().print(table)


def _key_row(key: Any) -> dict[str, str | None]:
    def when(moment: Any) -> str | None:
        return moment.isoformat(timespec="seconds") if moment else None

    return {
        "id": key.public_id,
        "name": key.name,
        "scopes": " ".join(sorted(key.scopes)),
        "created": when(key.created),
        "expires": when(key.expires),
        "revoked": when(key.revoked),
        "last_used": when(key.last_used),
    }


@keys_app.command("revoke")
def revoke_key(public_id: Annotated[str, typer.Argument(help="The id, as `maru keys list` shows it.")]) -> None:
    """Refuse a key from now on, within five seconds in every process."""
    from maru.app import open_keys
    from maru.auth.keyring import utc_now

    if not open_keys(Settings.read()).revoke(public_id, utc_now()):
        _fail(f"there is no key {public_id}, or it was revoked before")


@models_app.command("pull")
def pull(
    model: Annotated[str, typer.Argument(help="A repository on the hub, such as google/embeddinggemma-300m.")],
) -> None:
    """Fetch a model, so that the first start need not."""
    from maru.engine.errors import ModelLoadFailed
    from maru.runtimes.locate import locate

    settings = Settings.read()
    try:
        with screen.status(f"fetching {model}"):
            folder = locate(
                model, settings.maru_home / "models", token=settings.hf_token, endpoint=settings.hf_endpoint
            )
    except ModelLoadFailed as error:
        _fail(str(error))
    print(folder)  # noqa: T201


@app.command()
def settings() -> None:
    """Print every setting, with its default, as a Markdown table."""
    print(Settings.table())  # noqa: T201


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)  # noqa: T201
