"""`maru train forecast`: train, measure, keep the files, and register."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from maru.services.forecast.training import report
from maru.services.forecast.training.errors import TrainingError
from maru.services.forecast.training.train import TrainedForecaster, TrainingOptions, train
from maru.telemetry.stages import Stages

REFUSED = 1
UNUSABLE = 2


def run(
    csv: Path,
    *,
    home: Path,
    screen: Console,
    tracking_uri: str | None = None,
    features: str = "btc18",
    trainer: str = "numpy",
    register: str | None = None,
    alias: str | None = None,
    force: bool = False,
    seq_len: int = 12,
    epochs: int = 30,
    seed: int = 0,
    output: Path | None = None,
) -> int:
    """Train on `csv` and write the bundle to `output`, by default a folder in `home` that its contents name.

    With `register` the model becomes a version of that name in the registry at `tracking_uri`, or in the one
    embedded in `home`, and `alias` is moved to it, unless the holdout says that the last close is the better
    forecast; `force` moves it all the same.

    The exit status: 0; 1 when the alias was not moved, the version being registered; 2 when nothing could be
    trained or registered.
    """
    if alias and not register:
        return _failed(screen, "--alias needs --register NAME: an alias belongs to a registered model")
    options = TrainingOptions(csv, features, trainer, seq_len, epochs, seed)
    try:
        with Stages(screen) as progress:
            trained = train(options, progress)
        folder = output or home / "training" / trained.sha256[:12]
        trained.write(folder, report.markdown(trained))
    except TrainingError as error:
        return _failed(screen, str(error))
    except OSError as error:
        return _failed(screen, f"the bundle can't be written: {error.strerror}")
    _tell(screen, trained, folder)
    if not register:
        return 0
    mase = trained.holdout.evaluation.mase
    refused = alias is not None and mase > 1 and not force
    status = _register(screen, trained, home, tracking_uri, register, None if refused else alias)
    if refused and status == 0:
        screen.print(
            f"maru: the alias {escape(str(alias))} was not moved: the holdout MASE is {mase:.4f}, so the last close is "
            "the better forecast; --force moves it all the same",
            style="bold red",
            soft_wrap=True,
        )
        return REFUSED
    return status


def _tell(screen: Console, trained: TrainedForecaster, folder: Path) -> None:
    screen.print(report.table(trained))
    screen.print(report.LEGEND, style="dim")
    for note in trained.notes:
        screen.print(note, style="yellow", markup=False, soft_wrap=True)
    screen.print(report.verdict(trained), markup=False, soft_wrap=True)
    screen.print(f"written to {folder}", markup=False, soft_wrap=True)


def _register(
    screen: Console, trained: TrainedForecaster, home: Path, tracking_uri: str | None, name: str, alias: str | None
) -> int:
    from maru.runtimes.registry.open import embedded
    from maru.runtimes.registry.types import RegistryError

    try:
        with screen.status("registering"):
            version = trained.register(tracking_uri or embedded(home), name, alias)
    except RegistryError as error:
        return _failed(screen, str(error))
    told = f"registered as version {version.version} of {name}" + (f", now {alias}" if alias else "")
    screen.print(told, markup=False, soft_wrap=True)
    return 0


def _failed(screen: Console, message: str) -> int:
    screen.print(f"maru: {message}", style="bold red", markup=False, soft_wrap=True)
    return UNUSABLE
