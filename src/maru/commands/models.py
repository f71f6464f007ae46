"""`maru models`: what is on this machine, and what the registry holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from maru.commands import bundles, language_models
from maru.commands.bundles import RECOMMEND
from maru.commands.screen import fail, screen
from maru.settings import Settings

if TYPE_CHECKING:
    from maru.runtimes.registry.types import Registry

app = typer.Typer(no_args_is_help=True, help="Models: fetched from the hub, in the MLflow registry, and trained here.")

T = TypeVar("T")
Name = Annotated[str, typer.Argument(help="The registered model.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="A repository on the hub, such as google/embeddinggemma-300m; or style.")
    ],
    file: Annotated[str | None, typer.Option(help="Of a repository with several GGUF files, which.")] = None,
    service: Annotated[
        Literal["embedding", "ai"] | None,
        typer.Option("--for", help="Which service is to have it; default: embedding for sentence encoders, else ai."),
    ] = None,
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option(help="Of style.")] = "fp32",
) -> None:
    """Fetch a model, so that the first start need not."""
    settings = Settings.read()
    if model == "style":
        from maru.services.style.training.command import run_pull

        token, endpoint = settings.hf_token, settings.hf_endpoint
        raise SystemExit(
            run_pull(home=settings.maru_home, screen=screen, precision=precision, token=token, endpoint=endpoint)
        )
    if service is None:
        service = "ai" if file is not None or language_models.generates(settings, model) else "embedding"
    if service == "ai":
        print(language_models.pull_model(settings, model, file))  # noqa: T201
    else:
        print(_pulled(settings, model))  # noqa: T201


@app.command()
def rm(model: Annotated[str, typer.Argument(help="A language model's id, as GET /api/v1/models has it.")]) -> None:
    """Delete a language model's files. One that is in memory answers on until it is unloaded."""
    language_models.remove_model(Settings.read(), model)


def _pulled(settings: Settings, model: str) -> Path:
    from maru.engine.errors import ModelLoadFailed
    from maru.runtimes.locate import locate

    try:
        with screen.status(f"fetching {model}"):
            return locate(model, settings.maru_home / "models", token=settings.hf_token, endpoint=settings.hf_endpoint)
    except ModelLoadFailed as error:
        fail(str(error))


@app.command("list")
def list_models(
    of: Annotated[str | None, typer.Argument(help="recommend: the bundles; default: the registered models.")] = None,
    as_json: AsJson = False,
) -> None:
    """The registered models, and where their aliases point; or the bundles of the recommendation service."""
    if of == RECOMMEND:
        bundles.list_bundles(as_json=as_json)
        return
    if of is not None:
        fail(f"list takes {RECOMMEND} or nothing; `maru models show {of}` shows a registered model")
    models = _ask(lambda registry: registry.models())
    if as_json:
        print(json.dumps([{"name": model.name, "aliases": dict(model.aliases)} for model in models]))  # noqa: T201
        return
    table = Table("model", "aliases", "registered", box=None)
    for model in models:
        aliases = ", ".join(f"{alias} → {version}" for alias, version in sorted(model.aliases.items()))
        table.add_row(model.name, aliases, _when(model.created))
    Console().print(table)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """The versions of a model, newest first, with what was measured of each."""
    versions = _ask(lambda registry: registry.versions(name))
    if as_json:
        print(json.dumps([asdict(version) for version in versions]))  # noqa: T201
        return
    table = Table("version", "aliases", "registered", "measured", box=None)
    for version in versions:
        measured = ", ".join(f"{metric} {value:.4g}" for metric, value in sorted(version.metrics.items()))
        table.add_row(version.version, ", ".join(version.aliases), _when(version.created), measured)
    Console().print(table)


@app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="Such as staging.")],
    version: Annotated[str, typer.Argument(help="The version it is to point to.")],
) -> None:
    """Point an alias at a version. Servers that follow it swap to that version without dropping a request."""
    _ask(lambda registry: registry.set_alias(name, alias, version))
    print(f"{name}@{alias} → {version}")  # noqa: T201


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="The registered model, or recommend.")],
    version: Annotated[str | None, typer.Argument(help="Such as v2; default: the version at --from.")] = None,
    source: Annotated[str, typer.Option("--from", help="The alias of the version that proved itself.")] = "staging",
    target: Annotated[
        str | None,
        typer.Option("--to", help="The alias that is to point to it, too; default: Production, or live of recommend."),
    ] = None,
) -> None:
    """Point one alias at the version that another points to, or at the version that is named.

    Of recommend the candidate goes live by default; `--to candidate` tries a version on a share of the sessions.
    """
    if name == RECOMMEND:
        bundles.promote_bundle(version, target)
        return
    target = target or "Production"

    async def promoted(registry: Registry) -> str:
        chosen = version or (await registry.resolve(name, source)).version
        await registry.set_alias(name, target, chosen)
        return chosen

    print(f"{name}@{target} → {_ask(promoted)}")  # noqa: T201


@app.command()
def rollback(
    name: Annotated[Literal["recommend"], typer.Argument(help="The service whose bundles are meant.")],
    alias: Annotated[Literal["live", "candidate"], typer.Option(help="Which of them.")] = "live",
) -> None:
    """Point an alias of the bundles back at what it pointed to before."""
    bundles.roll_back(alias)


@app.command()
def withdraw(
    name: Annotated[Literal["recommend"], typer.Argument(help="The service whose candidate is meant.")],
) -> None:
    """End the trial of a candidate: the live bundle answers every session."""
    bundles.withdraw()


def _ask(question: Callable[[Registry], Awaitable[T]]) -> T:
    """What the configured registry answers; its refusal is the command's one line."""
    from maru.rooms.registry import registry_of
    from maru.runtimes.registry.types import RegistryError

    async def answer() -> T:
        async with aclosing(registry_of(Settings.read())) as registry:
            return await question(registry)

    try:
        return asyncio.run(answer())
    except RegistryError as error:
        fail(str(error))


def _when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
