"""`maru train style-text`, `maru train style` and `maru models pull style`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from maru.engine.errors import ModelLoadFailed
from maru.runtimes.locate import locate
from maru.runtimes.onnx.precision import PrecisionName
from maru.services.style.bundle import StyleBundle
from maru.services.style.starter import kept, materials, starter
from maru.services.style.training import images, production, report, stand_in
from maru.services.style.training.errors import TrainingError
from maru.services.style.training.lexicon import Lexicon
from maru.services.style.training.text import train
from maru.telemetry.stages import Stages

UNUSABLE = 2
MODEL = "google/siglip2-base-patch16-224"


def run_text(
    source: Path | None, *, home: Path, screen: Console, output: Path | None = None, version: str = "v1.0.0-starter",
    seed: int = 0,
) -> int:  # fmt: skip
    """Teach the text matcher what is in `source` (`lexicon.yaml`, `templates.yaml`, `palettes.yaml`), by default what
    the starter was made of; measure it, and write the bundle to `output`, by default where `home` keeps the one that
    serves.

    The exit status: 0, or 2 when nothing could be made.
    """
    target = output or kept(home)
    try:
        folder = source or materials()
        lexicon = Lexicon.read(folder)
        with Stages(screen) as progress:
            trained = train(lexicon, seed, progress)
        stand_in.write(trained, folder, target, version)
    except (TrainingError, ModelLoadFailed, OSError) as error:
        return _failed(screen, error)
    screen.print(report.table(trained.measured))
    screen.print(report.LEGEND, style="dim")
    screen.print(f"written to {target}", markup=False, soft_wrap=True)
    return 0


def run_images(
    photographs: Path, *, home: Path, screen: Console, bundle: Path | None = None, output: Path | None = None,
    version: str | None = None,
) -> int:  # fmt: skip
    """Calibrate how `bundle` reads images on `photographs`, which has a folder a style, and write it to `output`. By
    default it is the one that `home` keeps, or the starter, and the one that `home` keeps is replaced.

    The exit status: 0, or 2 when it could not be done.
    """
    target = output or kept(home)
    try:
        source = bundle or (kept(home) if kept(home).is_dir() else starter())
        opened = StyleBundle.open(source)
        with Stages(screen) as progress:
            trained = images.calibrate(opened, photographs, progress)
        images.write(trained, source, target, version or f"{opened.version}-calibrated")
    except (TrainingError, ModelLoadFailed, OSError) as error:
        return _failed(screen, error)
    for name in trained.skipped:
        screen.print(f"skipped, as it can't be read: {name}", style="yellow", markup=False, soft_wrap=True)
    screen.print(report.table({"held-out images": trained.measured}))
    screen.print(f"written to {target}", markup=False, soft_wrap=True)
    return 0


def run_pull(
    *, home: Path, screen: Console, model: str = MODEL, precision: PrecisionName = "fp32", source: Path | None = None,
    output: Path | None = None, version: str | None = None, token: str | None = None, endpoint: str | None = None,
) -> int:  # fmt: skip
    """Fetch a SigLIP2 from the hub, or take it from a folder, and write it as a bundle to `output`, by default where
    `home` keeps the one that serves; `source` has the lexicon and the prompts, by default the project's.

    The exit status: 0, or 2 when it could not be done.
    """
    target, name = output or kept(home), model.rstrip("/").rpartition("/")[2]
    try:
        with screen.status(f"fetching {model}"):
            checkpoint = locate(model, home / "models", token=token, endpoint=endpoint)
        with screen.status("exporting"):
            production.write(checkpoint, source or materials(), target, version or f"{name}-{precision}", precision)
    except (TrainingError, ModelLoadFailed, OSError) as error:
        return _failed(screen, error)
    screen.print(f"written to {target}", markup=False, soft_wrap=True)
    return 0


def _failed(screen: Console, error: Exception) -> int:
    message = f"the bundle can't be written: {error.strerror}" if isinstance(error, OSError) else str(error)
    screen.print(f"maru: {message}", style="bold red", markup=False, soft_wrap=True)
    return UNUSABLE
