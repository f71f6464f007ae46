"""`maru bench`: how fast it is, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from maru.commands.screen import fail, screen
from maru.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from maru.services.llm.benchmarks.plan import Objectives
    from maru.services.llm.service import Generations

app = typer.Typer(no_args_is_help=True, help="Measure a model.")

T = TypeVar("T")


@app.callback()
def _measure() -> None:
    """Measure a model."""


@app.command()
def llm(
    model: Annotated[str | None, typer.Argument(help="Default: the first there is.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Any server that speaks OpenAI's API; default: our own engine.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="That server's key.")] = None,
    pid: Annotated[int | None, typer.Option(help="That server's process here, whose CPU time is counted.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='A prompt a line, as text or as JSON: {"prompt": "…"}.', exists=True)
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask as a chat.")] = False,
    concurrency: Annotated[str, typer.Option(help="Clients at once, each figure a level: 1,2,4.")] = "1",
    rate: Annotated[str, typer.Option(help="Requests a second in their place: 0.5,1,2.")] = "",
    even: Annotated[bool, typer.Option("--even", help="At even intervals, and not at random ones.")] = False,
    sweep: Annotated[int, typer.Option(min=0, max=16, help="Rates between one client and --concurrency.")] = 0,
    requests: Annotated[int, typer.Option(min=0, help="A level; default: one a prompt.")] = 0,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each level.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before anything is measured.")] = 3,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 128,
    fixed_length: Annotated[bool, typer.Option("--fixed-length", help="Every answer has that many.")] = False,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    reuse_cache: Annotated[bool, typer.Option("--reuse-cache", help="Let equal beginnings be computed once.")] = False,
    slo: Annotated[str, typer.Option(help="What a good answer is, in seconds: ttft:0.5,tpot:0.05,e2e:10.")] = "",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that one answer may take.")] = 300.0,
    output: Annotated[Path | None, typer.Option(help="A folder for the result: JSON, CSV, a report, plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for programs.")] = False,
) -> None:
    """Measure a language model: tokens a second, time to the first token and between tokens, at each load."""
    from maru.services.llm.benchmarks.command import CommandError, Options, run
    from maru.services.llm.benchmarks.schemas import DEFAULT_PROMPTS

    options = Options(
        prompts=_prompts(prompts) if prompts else DEFAULT_PROMPTS,
        model=model,
        url=url,
        key=api_key,
        pid=pid,
        chat=chat,
        concurrency=_list("--concurrency", concurrency, int),
        rates=_list("--rate", rate, float),
        arrivals="constant" if even else "poisson",
        sweep=sweep,
        requests=requests,
        repetitions=repetitions,
        warmups=warmup,
        max_tokens=max_tokens,
        fixed_length=fixed_length,
        temperature=temperature,
        seed=seed,
        reuse_cache=reuse_cache,
        objectives=_objectives(slo),
        timeout_s=timeout,
    )
    try:
        raise SystemExit(run(options, _own, screen, output, as_json))
    except CommandError as error:
        fail(str(error))


def _own() -> AbstractAsyncContextManager[Generations]:
    from maru.rooms.ai import open_generations

    return open_generations(Settings.read())


def _list(name: str, given: str, of: Callable[[str], T]) -> list[T]:
    """Positive figures, separated by commas."""
    try:
        found = [of(each) for each in given.split(",") if each.strip()]
    except ValueError:
        found = None
    if found is None or any(each <= 0 for each in found):  # type: ignore[operator]
        fail(f"{name} takes figures above zero, separated by commas")
    return found


def _objectives(given: str) -> Objectives:
    from maru.services.llm.benchmarks.plan import Objectives

    found: dict[str, float] = {}
    for each in filter(None, given.split(",")):
        name, _, value = each.partition(":")
        try:
            found[{"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_s"}[name.strip()]] = float(value)
        except (KeyError, ValueError):
            fail("--slo takes ttft, tpot and e2e with seconds: ttft:0.5,tpot:0.05,e2e:10")
    return Objectives(**found)


def _prompts(file: Path) -> list[str]:
    found: list[str] = []
    for line in file.read_text().splitlines():
        if not line.strip():
            continue
        text: object = line
        if line.lstrip().startswith("{"):
            try:
                text = json.loads(line)["prompt"]
            except (json.JSONDecodeError, KeyError):
                text = None
        if not isinstance(text, str) or not text.strip():
            fail(f'{file}: every line is a prompt, or {{"prompt": "…"}}')
        found.append(text)
    if not found:
        fail(f"{file} has no prompts")
    return found
