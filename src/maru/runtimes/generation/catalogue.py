"""The models in a folder: GGUF files and folders of safetensors, each with what it is or why it can't be used.

    MODELS_DIR/llama-3.1-8b.Q4_K_M.gguf        llama-3.1-8b.q4-k-m
    MODELS_DIR/gpt2-medium/model.safetensors   gpt2-medium
    MODELS_DIR/owner--name/any.gguf            any

Names that begin with a dot are not looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from maru.engine.errors import ModelLoadFailed
from maru.engine.model import Model
from maru.engine.types import ModelRef

Kind = Literal["gguf", "safetensors"]

ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
"""What an id is like. Nothing that a caller sends becomes a path: ids are looked up."""

MAX_MODELS = 1000


@dataclass(frozen=True, slots=True)
class Description:
    """What a model's files say: facts for people, and the bytes that it will take in memory."""

    facts: Mapping[str, Any]
    memory_bytes: int


class Runtime(Protocol):
    """What runs models of one kind. Both raise ModelLoadFailed with the reason for a file that they can't use."""

    @property
    def slots(self) -> int:
        """How many answers are computed at once."""

    def describe(self, path: Path) -> Description:
        """Vet the files; starts nothing and takes well under a second."""

    def open(self, path: Path) -> Model:
        """Vet the files again and load the model."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the folder. One with a `problem` can't be used, and has no `description`.

    `version` changes with the files. `size` is that of the files in bytes, `modified` in seconds since 1970.
    """

    id: str
    kind: Kind
    path: Path
    size: int
    modified: float
    version: str
    runtime: Runtime = field(repr=False, compare=False)
    description: Description | None = None
    problem: str | None = None

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.id, self.version, self.version)

    def load(self) -> Model:
        """Blocks until the model is loaded."""
        return self.runtime.open(self.path)

    def sha256(self) -> str:
        """The checksum of the file, or of all files of a folder. Blocks for about a second a gigabyte."""
        if self.path.is_file():
            return _sha256(self.path)
        files = sorted(file for file in self.path.iterdir() if file.is_file())
        listed = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()

    @property
    def context_length(self) -> int | None:
        return None if self.description is None else self.description.facts["context_length"]


class Catalogue:
    """What `folder` holds, as of the last `scan`."""

    def __init__(self, folder: Path, runtimes: Mapping[Kind, Runtime]) -> None:
        self.folder = folder
        self._runtimes = runtimes
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, id: str) -> Entry | None:
        return self._entries.get(id)

    def scan(self) -> bool:
        """Look again; whether anything has changed. Blocks: files that are new or have changed are vetted.

        A folder that is not there is empty. No file, whatever is in it, makes this fail.
        """
        known = {entry.path: entry for entry in self._entries.values()}
        found: dict[str, Entry] = {}
        for kind, path in self._candidates():
            entry = self._entry(kind, path, known.get(path), found)
            if entry is not None:
                found[entry.id] = entry
        changed = found != self._entries
        self._entries = found
        return changed

    def _candidates(self) -> list[tuple[Kind, Path]]:
        """The paths that look like models, in an order that stays the same."""
        found: list[tuple[Kind, Path]] = []
        for path in _listed(self.folder):
            inside = _listed(path) if path.is_dir() else []
            files: list[tuple[Kind, Path]] = [("gguf", file) for file in (path, *inside) if file.suffix == ".gguf"]
            if not files and any(file.suffix == ".safetensors" for file in inside):
                files = [("safetensors", path)]
            found += [each for each in files if each[0] in self._runtimes]
        return found[:MAX_MODELS]

    def _entry(self, kind: Kind, path: Path, known: Entry | None, taken: Mapping[str, Entry]) -> Entry | None:
        try:
            size, modified, version = _state(path)
        except OSError:
            return None  # it has just gone
        if known is not None and known.version == version and known.kind == kind and known.id not in taken:
            return known
        description, problem = None, None
        runtime = self._runtimes[kind]
        try:
            if not path.resolve().is_relative_to(self.folder.resolve()):
                problem = f"{path.name} is a link that leads out of the models' folder"
            else:
                description = runtime.describe(path)
        except ModelLoadFailed as error:
            problem = str(error)
        except Exception as error:  # of whatever reads what somebody has put there
            problem = f"{path.name} can't be read: {type(error).__name__}"
        name = _id(path.stem if kind == "gguf" else path.name, taken)
        return Entry(name, kind, path, size, modified, version, runtime, description, problem)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _id(name: str, taken: Mapping[str, Entry]) -> str:
    """A free id for files of that name."""
    plain = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "model"
    if plain not in taken:
        return plain
    return next(id for number in range(2, MAX_MODELS + 2) if (id := f"{plain[:59]}-{number}") not in taken)


def _state(path: Path) -> tuple[int, float, str]:
    """Size in bytes, time of the last change, and a name for this state of the files."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files]
    told = [(name, state.st_size, state.st_mtime_ns, state.st_ino) for name, state in states]
    version = hashlib.sha256(repr(told).encode(errors="surrogateescape")).hexdigest()[:16]
    size = sum(state.st_size for _, state in states)
    return size, max((state.st_mtime for _, state in states), default=path.stat().st_mtime), version
