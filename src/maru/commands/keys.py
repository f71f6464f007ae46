"""`maru keys`: who may ask."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from maru.commands.screen import fail
from maru.settings import Settings

app = typer.Typer(no_args_is_help=True, help="API keys: made once, shown once, stored hashed.")


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is. Keys of one name share limits and results.")],
    scope: Annotated[list[str] | None, typer.Option(help="A service it may use, repeatable. Default: all.")] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires; default: never.")] = None,
    weight: Annotated[float, typer.Option(help="Its share of a busy model beside other callers.")] = 1.0,
) -> None:
    """Make a key and print it. It is not stored and can't be shown again."""
    from maru.auth.keys import EVERYTHING, mint
    from maru.platform import open_keys

    life = timedelta(days=days) if days is not None else None
    try:
        everything = frozenset({EVERYTHING})
        minted = mint(open_keys(Settings.read()), name, scope or everything, by=everything, weight=weight, life=life)
    except ValueError as error:
        fail(str(error))
    print(minted.key)  # noqa: T201


@app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """The keys that were made, without their secrets."""
    from maru.platform import open_keys

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


@app.command("revoke")
def revoke_key(public_id: Annotated[str, typer.Argument(help="The id, as `maru keys list` shows it.")]) -> None:
    """Refuse a key from now on, within five seconds in every process."""
    from maru.auth.keyring import utc_now
    from maru.platform import open_keys

    if not open_keys(Settings.read()).revoke(public_id, utc_now()):
        fail(f"there is no key {public_id}, or it was revoked before")
