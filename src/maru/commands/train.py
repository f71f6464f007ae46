"""`maru train`: from data to a model that is measured, kept and registered."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from maru.commands.screen import fail, screen
from maru.commands.train_llm import llm
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


@app.command()
def recommend(
    events: Annotated[
        Path | None, typer.Argument(help="Parquet, CSV or OTTO's JSON lines; or RetailRocket's or YOOCHOOSE's folder.")
    ] = None,
    feedback: Annotated[bool, typer.Option("--feedback", help="Also what came in at POST /events.")] = False,
    simulate: Annotated[int | None, typer.Option(help="Of a shop that does not exist, so many events.")] = None,
    output: Annotated[Path | None, typer.Option(help="The folder of bundles; default: the one that is served.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Let it serve at once.")] = False,
    seed: Annotated[int, typer.Option(help="Of all that is drawn by chance.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: one for each processor.")] = None,
    teaching: Annotated[int | None, typer.Option(min=1, help="At most so many visits teach the rankers.")] = None,
    measuring: Annotated[int | None, typer.Option(min=1, help="At most so many visits measure.")] = None,
    memory: Annotated[float | None, typer.Option(min=0.01, help="GiB for events; default: half the machine's.")] = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster for co-visitation; `local`: here.")] = None,
) -> None:
    """Recommend what sessions want next: train on their events, measure on the newest of them, keep the bundle."""
    from maru.services.recommend.training.command import run

    settings = Settings.read()
    with _feedback(settings, feedback) as fed:
        raise SystemExit(
            run(
                events,
                feedback=fed,
                simulate=simulate,
                home=settings.maru_home,
                screen=screen,
                output=output,
                promote=promote,
                seed=seed,
                threads=threads,
                teaching=teaching,
                measuring=measuring,
                memory_bytes=None if memory is None else round(memory * 2**30),
                ray=ray,
            )
        )


@app.command("style-text")
def style_text(
    folder: Annotated[
        Path | None, typer.Argument(help="lexicon.yaml, templates.yaml, palettes.yaml; default: the project's.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the bundle goes; default: under MARU_HOME.")] = None,
    version: Annotated[str, typer.Option(help="What it calls itself.")] = "v1.0.0-starter",
    seed: Annotated[int, typer.Option(min=0, help="Of the sentences.")] = 0,
) -> None:
    """Teach the style service's text matcher your own words."""
    from maru.services.style.training.command import run_text

    home = Settings.read().maru_home
    raise SystemExit(run_text(folder, home=home, screen=screen, output=output, version=version, seed=seed))


@app.command()
def style(
    photographs: Annotated[Path, typer.Argument(help="A folder of images for each style, and `none`.")],
    bundle: Annotated[Path | None, typer.Option(help="Which to calibrate; default: the one that serves.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where it goes; default: under MARU_HOME.")] = None,
    version: Annotated[str | None, typer.Option(help="What it calls itself.")] = None,
) -> None:
    """Calibrate how the style model reads images."""
    from maru.services.style.training.command import run_images

    home = Settings.read().maru_home
    raise SystemExit(run_images(photographs, home=home, screen=screen, bundle=bundle, output=output, version=version))


app.command()(llm)


@contextmanager
def _feedback(settings: Settings, wanted: bool) -> Iterator[Path | None]:
    """What people did with earlier recommendations, as a file of events; it is gone afterwards."""
    if not wanted:
        yield None
        return
    from maru.platform import open_tables
    from maru.storage.feedback import FeedbackStore

    store = FeedbackStore(open_tables(settings))
    if not store.count():
        fail("there is no feedback yet: nothing came in at POST /events")
    with tempfile.TemporaryDirectory(prefix="maru-feedback-") as folder:
        file = Path(folder) / "feedback.csv"
        store.write_csv(file)
        yield file
