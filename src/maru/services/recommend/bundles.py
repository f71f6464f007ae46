"""The folder of trained recommenders: versions that never change, and the aliases that say which of them serve."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numba comes with it, which only a process that recommends is to load
    from maru.services.recommend.core.recommender import Recommender

MANIFEST = "manifest.json"
ALIASES = "aliases.json"
FORMAT = 1
LIVE = "live"
CANDIDATE = "candidate"
BUILDING = ".building-"
REMEMBERED = 20
"""How many versions of an alias are kept to go back to."""
ABANDONED_S = 86_400

_VERSION = re.compile(r"v[1-9][0-9]{0,8}")


def bundles_folder(home: Path) -> Path:
    """Where the bundles of a home are."""
    return home / "recommend" / "bundles"


class BundleError(Exception):
    """The message is one line for a person, and names version and file, never the folder."""


class BundleNotFound(BundleError):
    """There is no such version, or nothing to go back to."""


class BundleDamaged(BundleError):
    """A file is missing, or is not the one that was written."""


@dataclass(frozen=True, slots=True, eq=False)
class RecommendBundle:
    """One version. `manifest` says what it was made of and what it was measured to be worth; `digest` is the
    SHA-256 of its file, which holds those of all others."""

    version: str
    folder: Path
    manifest: Mapping[str, Any]
    digest: str

    @property
    def memory_bytes(self) -> int:
        """What it takes when all of it is read."""
        return sum(int(file["bytes"]) for file in self.manifest["files"].values())

    @property
    def created(self) -> str:
        """ISO 8601, UTC."""
        return str(self.manifest.get("created", ""))

    @property
    def metrics(self) -> Mapping[str, Any]:
        """By the way to recommend, then by metric: value, and the ends of its 95% interval."""
        found: Mapping[str, Any] = self.manifest.get("metrics", {})
        return found

    def verify(self) -> None:
        """BundleDamaged unless every file is the one that was written, and no other file is there."""
        files: Mapping[str, Any] = self.manifest["files"]
        there = {file.name for file in self.folder.iterdir()} - {MANIFEST}
        if strange := sorted(there - set(files)):
            raise BundleDamaged(f"{self.version} has a file that does not belong to it: {strange[0]}")
        for name, known in files.items():
            try:
                with (self.folder / name).open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
            except OSError as error:
                raise BundleDamaged(f"{self.version}: {name} can't be read: {error.strerror}") from None
            if digest != known["sha256"]:
                raise BundleDamaged(f"{self.version}: {name} is not what was written")

    def recommender(self) -> Recommender:
        """The arrays memory-mapped, the trees read. BundleDamaged when they don't fit this version of Maru."""
        from maru.services.recommend.core.index import Index
        from maru.services.recommend.core.rankers import open_rankers
        from maru.services.recommend.core.recommender import Recommender

        try:
            return Recommender(Index.open(self.folder), open_rankers(self.folder))
        except (OSError, ValueError) as error:
            raise BundleDamaged(f"{self.version} can't be opened: {error}") from None


class Bundles:
    """Versions v1, v2, … in one folder, whole or absent, whatever crashes and whichever processes write.

    A version is written beside its place and then renamed into it, and never changes. An alias points to one:
    `live` serves, `candidate` is tried beside it. Aliases are replaced in one step.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, build: Callable[[Path], Mapping[str, Any]]) -> RecommendBundle:
        """The next version: `build` fills an empty folder with files and gives what the manifest is to say."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        work = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self._folder))
        try:
            _seal(work, build(work))
            version = self._place(work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return self._described(version)

    def versions(self) -> list[RecommendBundle]:
        """The newest first; their files are not looked at."""
        found = []
        for number in sorted(self._numbers(), reverse=True):
            with suppress(BundleError):
                found.append(self._described(f"v{number}"))
        return found

    def open(self, version: str) -> RecommendBundle:
        """That version, every file of it verified. BundleNotFound, BundleDamaged."""
        bundle = self._described(version)
        bundle.verify()
        return bundle

    def aliases(self) -> dict[str, str]:
        """Alias to version. Quick enough to ask often."""
        return {alias: versions[0] for alias, versions in self._history().items() if versions}

    def current(self, alias: str = LIVE) -> str | None:
        """The version that the alias points to."""
        return self.aliases().get(alias)

    def promote(self, version: str, alias: str = LIVE) -> RecommendBundle:
        """Point the alias at a version, whose files are verified first. A candidate that goes live is none any more."""
        bundle = self.open(version)
        with self._changing() as history:
            before = history.get(alias, [])
            if before[:1] != [version]:
                history[alias] = [version, *before][:REMEMBERED]
            if alias == LIVE and history.get(CANDIDATE, [])[:1] == [version]:
                del history[CANDIDATE]
        return bundle

    def rollback(self, alias: str = LIVE) -> RecommendBundle:
        """Point the alias back at the version it pointed to before; again, at the one before that."""
        with self._changing() as history:
            before = history.get(alias, [])[1:]
            if not before:
                raise BundleNotFound(f"there is no version before {alias} to go back to")
            bundle = self.open(before[0])
            history[alias] = before
        return bundle

    def withdraw(self, alias: str = CANDIDATE) -> None:
        """Let the alias point to nothing."""
        with self._changing() as history:
            history.pop(alias, None)

    def _described(self, version: str) -> RecommendBundle:
        folder = self._folder / version
        if not _VERSION.fullmatch(version) or not folder.is_dir():
            raise BundleNotFound(f"there is no version {version}" if _VERSION.fullmatch(version) else "no such version")
        try:
            content = (folder / MANIFEST).read_bytes()
            manifest = json.loads(content)
            known = manifest["format"] == FORMAT and all(
                file["bytes"] >= 0 and file["sha256"] and "/" not in name for name, file in manifest["files"].items()
            )
        except OSError as error:
            raise BundleDamaged(f"{version}: {MANIFEST} can't be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BundleDamaged(f"{version}: {MANIFEST} describes no bundle") from None
        if not known:
            raise BundleDamaged(f"{version} was written by another version of Maru")
        return RecommendBundle(version, folder, manifest, hashlib.sha256(content).hexdigest())

    def _numbers(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return [int(place.name[1:]) for place in self._folder.iterdir() if _VERSION.fullmatch(place.name)]

    def _place(self, work: Path) -> str:
        """Give the folder the next free name. Another process may take it first."""
        remembered = [int(version[1:]) for versions in self._history().values() for version in versions]
        number = max([0, *self._numbers(), *remembered]) + 1
        while True:
            try:
                work.rename(self._folder / f"v{number}")
            except OSError:
                if not (self._folder / f"v{number}").exists():
                    raise
                number += 1
            else:
                _sync(self._folder)
                return f"v{number}"

    def _history(self) -> dict[str, list[str]]:
        """Of each alias the versions it has pointed to, the present one first."""
        try:
            found: dict[str, list[str]] = json.loads((self._folder / ALIASES).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            raise BundleDamaged(f"{ALIASES} can't be read") from None
        return found

    @contextmanager
    def _changing(self) -> Iterator[dict[str, list[str]]]:
        """The aliases, to be changed by one process at a time; written when the block ends without an error."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            history = self._history()
            yield history
            fresh = self._folder / f".{ALIASES}.new"
            with fresh.open("w", encoding="utf-8") as written:
                json.dump(history, written, indent=2)
                written.flush()
                os.fsync(written.fileno())
            fresh.replace(self._folder / ALIASES)
            _sync(self._folder)

    def _sweep(self) -> None:
        """Remove what trainings left that were cut off long ago."""
        for place in self._folder.glob(f"{BUILDING}*"):
            with suppress(OSError):
                if time.time() - place.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(place, ignore_errors=True)


def _seal(folder: Path, told: Mapping[str, Any]) -> None:
    """Put the manifest beside the files, and all of it on the disk."""
    files = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        files[file.name] = {"sha256": digest, "bytes": file.stat().st_size}
    with (folder / MANIFEST).open("w", encoding="utf-8") as written:
        json.dump({"format": FORMAT, **told, "files": files}, written, indent=2, ensure_ascii=False)
        written.write("\n")
        written.flush()
        os.fsync(written.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    """A rename is only safe once the folder is written, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
