"""The model that the first start has something to serve with."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import maru

log = logging.getLogger(__name__)

NAME = "austen-3m.gguf"


def starter() -> Path | None:
    """The GGUF that comes with Maru: in the installed package, or in the checkout around it."""
    package = Path(maru.__file__).parent
    places = (package / "starters" / "llm" / NAME, package.parents[1] / "starters" / "llm" / NAME)
    return next((place for place in places if place.is_file()), None)


def plant(models: Path) -> None:
    """Copy the starter into the folder of models if there is nothing in it yet. Blocks for some milliseconds. OSError.

    It is a file like any other there: whoever has added a model may remove it, and it doesn't come back.
    """
    source = starter()
    if source is None:
        return
    models.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(not path.name.startswith(".") for path in models.iterdir()):
        return
    partial = models / f".{NAME}.{os.getpid()}"
    try:
        shutil.copyfile(source, partial)
        partial.replace(models / NAME)
    finally:
        partial.unlink(missing_ok=True)
    log.info("the starter model is in its place", extra={"fields": {"model": Path(NAME).stem}})
