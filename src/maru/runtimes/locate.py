"""Where the files of a model are, by its name."""

from __future__ import annotations

from pathlib import Path

from maru.runtimes.errors import ModelUnavailable
from maru.runtimes.hub import fetch
from maru.runtimes.packaged import packaged

__all__ = ["ModelUnavailable", "locate"]


def locate(name: str, cache: Path, *, token: str | None = None, endpoint: str | None = None) -> Path:
    """The folder of a model. ModelUnavailable when it can't be had.

    A name that begins with `/`, `.` or `~` is a folder's path. Any other is that of an installed package, or
    else of a repository on the hub, which is downloaded into `cache`; such a name never becomes a path.
    """
    if name.startswith(("/", ".", "~")):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ModelUnavailable(f"there is no folder {name}")
        return folder
    return packaged(name) or fetch(name, cache, token=token, endpoint=endpoint)
