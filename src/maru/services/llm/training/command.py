"""`maru train llm`: train, measure, and keep a GGUF."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console

from maru.services.llm.training.errors import TrainingError
from maru.services.llm.training.writing import KINDS
from maru.telemetry.stages import Stages

UNUSABLE = 2
LOG, REPORT = "training.jsonl", "report.md"


def run(
    text: Path,
    *,
    home: Path,
    screen: Console,
    models: Path | None = None,
    name: str | None = None,
    kind: str = "Q8_0",
    output: Path | None = None,
    size: str = "small",
    vocabulary: int = 4096,
    epochs: float = 3.0,
    seed: int = 0,
    threads: int | None = None,
    python: Path | None = None,
) -> int:
    """Train on `text` and write NAME.gguf, the report and the log of the training to `output`, by default a folder in
    `home` that the text names. With `models`, the GGUF goes there, where it is served from.

    `name` is by default the text's. `threads` are by default as many as there are processors; `python` is an
    interpreter with torch. The exit status: 0, or 2 when nothing could be trained or written.
    """
    from maru.services.llm.training import report
    from maru.services.llm.training.train import TrainingOptions, train

    if kind not in KINDS:
        return _failed(screen, f"there is no kind {kind}; there are: {', '.join(KINDS)}")
    name = name or text.stem
    if not name or "/" in name or name.startswith("."):
        return _failed(screen, "--name is a file name, without a slash, and not one that is hidden")
    options = TrainingOptions(
        text,
        size=size,
        vocabulary=vocabulary,
        epochs=epochs,
        seed=seed,
        threads=threads or len(os.sched_getaffinity(0)),
        python=python,
    )
    try:
        with Stages(screen) as progress:
            trained = train(options, progress)
        folder = output or home / "training" / f"llm-{trained.text.sha256[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        model = (models or folder) / f"{name}.gguf"
        trained.write(model, kind)
        (folder / REPORT).write_text(report.markdown(trained), "utf-8")
        (folder / LOG).write_text("".join(json.dumps(step) + "\n" for step in trained.log), "utf-8")
    except (TrainingError, ValueError) as error:
        return _failed(screen, str(error))
    except OSError as error:
        return _failed(screen, f"the model can't be written: {error.strerror}")
    screen.print(report.table(trained))
    screen.print(f"written to {model}, and its report to {folder}", markup=False, soft_wrap=True)
    return 0


def _failed(screen: Console, message: str) -> int:
    screen.print(f"maru: {message}", style="bold red", markup=False, soft_wrap=True)
    return UNUSABLE
