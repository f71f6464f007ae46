"""`maru train llm`: a language model of one's own text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maru.commands.screen import screen
from maru.settings import Settings


def llm(
    text: Annotated[Path, typer.Argument(help="A text file, or a folder of .txt files, in UTF-8.")],
    name: Annotated[str | None, typer.Option(help="Of the model; default: the text's.")] = None,
    size: Annotated[str, typer.Option(help="tiny, small, medium: 0.4, 2.8 or 14 million parameters.")] = "small",
    kind: Annotated[str, typer.Option(help="How weights are kept: F32, F16, BF16, Q8_0, Q4_0.")] = "Q8_0",
    vocabulary: Annotated[int, typer.Option(min=261, help="Tokens, learnt from the text.")] = 4096,
    epochs: Annotated[float, typer.Option(min=0.01, help="How often the text is read.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the order of the text.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: one for each processor.")] = None,
    python: Annotated[Path | None, typer.Option(help="A Python that has torch; default: LLM_PYTHON, this one.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Put the model into MODELS_DIR, where it is served.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where the files go; default: under MARU_HOME.")] = None,
) -> None:
    """Go on as a text does: learn a vocabulary and a small Llama from it, measure it on the text's end, keep a GGUF."""
    from maru.rooms.ai import folder_of
    from maru.services.llm.training.command import run

    settings = Settings.read()
    raise SystemExit(
        run(
            text,
            home=settings.maru_home,
            screen=screen,
            models=folder_of(settings) if serve else None,
            name=name,
            kind=kind,
            output=output,
            size=size,
            vocabulary=vocabulary,
            epochs=epochs,
            seed=seed,
            threads=threads,
            python=python or (Path(settings.llm_python) if settings.llm_python else None),
        )
    )
