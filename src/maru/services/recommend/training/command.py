"""`maru train recommend`: train, measure, keep the bundle, and let it serve."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from maru.services.recommend.bundles import LIVE, BundleError, Bundles, bundles_folder
from maru.services.recommend.training.errors import TrainingError
from maru.telemetry.stages import Stages

UNUSABLE = 2


def run(
    events: Path | None,
    *,
    feedback: Path | None = None,
    simulate: int | None = None,
    home: Path,
    screen: Console,
    output: Path | None = None,
    promote: bool = False,
    seed: int = 0,
    threads: int | None = None,
    teaching: int | None = None,
    measuring: int | None = None,
    memory_bytes: int | None = None,
    ray: str | None = None,
) -> int:
    """Train on `events`, and on `feedback`, another file of them, or on so many of a simulated shop.

    The bundle is added to those in `output`, by default to those that the service of this `home` follows. It goes
    live when nothing is, or when it is to be promoted. `threads` are by default as many as there are processors.

    The exit status: 0, or 2 when nothing could be trained or written.
    """
    from maru.services.recommend.core.compiling import keep_compiled_in

    keep_compiled_in(home / "cache" / "numba")
    from maru.services.recommend.training import report
    from maru.services.recommend.training.train import TrainingOptions, train

    options = TrainingOptions(
        events,
        feedback,
        simulate,
        seed=seed,
        teaching=teaching,
        measuring=measuring,
        threads=threads or len(os.sched_getaffinity(0)),
        memory_bytes=memory_bytes,
        ray=ray,
    )
    bundles = Bundles(output or bundles_folder(home))
    try:
        with Stages(screen) as progress:
            trained = train(options, progress)
        bundle = bundles.add(trained.write)
        live = bundles.current(LIVE)
        if promote or live is None:
            bundles.promote(bundle.version)
    except (TrainingError, BundleError) as error:
        return _failed(screen, str(error))
    except OSError as error:
        return _failed(screen, f"the bundle can't be written: {error.strerror}")
    except MemoryError:
        return _failed(screen, "there is not enough memory for so many events: set a smaller --memory")
    screen.print(report.table(trained.evaluation))
    screen.print(report.LEGEND, style="dim")
    for note in trained.notes:
        screen.print(note, style="yellow", markup=False, soft_wrap=True)
    for line in report.verdict(trained.evaluation):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(f"written to {bundle.folder}", markup=False, soft_wrap=True)
    if promote or live is None:
        screen.print(f"{bundle.version} is live", markup=False, soft_wrap=True)
    else:
        screen.print(
            f"{live} stays live; to serve {bundle.version}: maru models promote recommend {bundle.version}",
            markup=False,
            soft_wrap=True,
        )
    return 0


def _failed(screen: Console, message: str) -> int:
    screen.print(f"maru: {message}", style="bold red", markup=False, soft_wrap=True)
    return UNUSABLE
