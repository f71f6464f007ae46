"""`maru train`: from data to a model that is measured, kept and registered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maru.commands.screen import screen
from maru.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Train a model on your data.")


@app.command()
def forecast(
    csv: Annotated[Path, typer.Argument(help="Candles: time, open, high, low, close, volume.")],
    features: Annotated[str, typer.Option(help="The set of features: btc18.")] = "btc18",
    trainer: Annotated[str, typer.Option(help="numpy, or torch where it is installed.")] = "numpy",
    register: Annotated[str | None, typer.Option(help="Register it as the next version of this name.")] = None,
    alias: Annotated[str | None, typer.Option(help="Point this alias at it, if it beats the last close.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Move the alias whatever was measured.")] = False,
    seq_len: Annotated[int | None, typer.Option(help="Steps in a window; default: SEQ_LEN_REQUIRED.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most; it stops when it gets no better.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the windows.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Where the files go; default: under MARU_HOME.")] = None,
) -> None:
    """Forecast the next close: train an LSTM, measure it walking forward against the last close, and register it."""
    from maru.services.forecast.training.command import run

    settings = Settings.read()
    raise SystemExit(
        run(
            csv,
            home=settings.maru_home,
            screen=screen,
            tracking_uri=settings.mlflow_tracking_uri,
            features=features,
            trainer=trainer,
            register=register,
            alias=alias,
            force=force,
            seq_len=seq_len or settings.seq_len_required,
            epochs=epochs,
            seed=seed,
            output=output,
        )
    )
