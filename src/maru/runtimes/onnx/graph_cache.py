"""Graphs that were built before, on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class GraphCache:
    """Folders of files, each under a key, complete or absent.

    A folder is written beside its place and then renamed into it, so that half of one is never seen, whatever
    crashes and whoever else writes. Its manifest has the SHA-256 of every file; one that does not match is
    built again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of this key, after `build` has filled it if it was not there or was damaged."""
        name = hashlib.sha256(key.encode()).hexdigest()
        place = self._root / name
        if place.is_dir():
            if _sound(place):
                return place
            log.warning("the cached graph %s is damaged and is built again", name[:12])
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=self._root) as work:
            fresh = Path(work) / name
            fresh.mkdir()
            build(fresh)
            _seal(fresh)
            self._put(fresh, place, Path(work))
        return place

    @staticmethod
    def _put(fresh: Path, place: Path, work: Path) -> None:
        for _ in range(3):
            try:
                fresh.rename(place)
            except OSError:  # it is there: another process was faster, or it is the damaged one
                if _sound(place):
                    return
                damaged = Path(tempfile.mkdtemp(dir=work)) / "damaged"
                place.rename(damaged)
            else:
                return
        raise OSError("the cached graph can't be put in its place")


def _seal(folder: Path) -> None:
    sums = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            sums[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    (folder / MANIFEST).write_text(json.dumps(sums))


def _sound(folder: Path) -> bool:
    try:
        sums = json.loads((folder / MANIFEST).read_bytes())
        for name, expected in sums.items():
            with (folder / name).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != expected:
                    return False
        return bool(sums)
    except (OSError, ValueError, AttributeError):
        return False
