"""The bundle that serves where no other is, and what it was made of."""

from __future__ import annotations

from pathlib import Path

import maru
from maru.runtimes.errors import ModelUnavailable


def materials() -> Path:
    """The folder of the lexicon, the prompts and the palettes: in the installed package, or in the checkout around it.

    ModelUnavailable where it is in neither.
    """
    package = Path(maru.__file__).parent
    for place in (package / "starters" / "style", package.parents[1] / "starters" / "style"):
        if place.is_dir():
            return place
    raise ModelUnavailable("the style service's starter is not installed; STYLE_MODEL can name another bundle")


def starter() -> Path:
    """The folder of the starter's bundle. ModelUnavailable."""
    return materials() / "bundle"


def kept(home: Path) -> Path:
    """The folder of the bundle that was pulled or trained, which serves instead of the starter once it is there."""
    return home / "models" / "style"
