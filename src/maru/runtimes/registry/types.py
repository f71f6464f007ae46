"""What a registry of models is to the rest of Maru: names, versions, the aliases that move, and their files.

RegistryError (a ModelLoadFailed)
├── RegistryUnavailable   the registry can't be asked now: down, silent, refusing, or not making sense
└── VersionNotFound       it was asked, and has no such model, version or alias
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from maru.engine.errors import ModelLoadFailed


class RegistryError(ModelLoadFailed):
    """A registry did not give what was asked. The message may be shown: it names no path, credential or URL."""


class RegistryUnavailable(RegistryError):
    """The registry can't be asked now. The same question may be answered later."""


class VersionNotFound(RegistryError):
    """The registry has no model, version or alias of that name."""


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One version of a registered model, which never changes, and what the registry said of it when asked.

    `source` is where the registry has it from (`models:/m-…`, `runs:/…`), for people to read: without
    credentials, and of a folder its last part only. `created` is in seconds since 1970.
    """

    name: str
    version: str
    source: str
    aliases: tuple[str, ...] = ()
    run_id: str | None = None
    created: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered name, and to which version each alias points."""

    name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    created: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a model's files may be, all together, and how many."""

    max_bytes: int = 512 * 2**20
    max_files: int = 512
    max_depth: int = 8


class Registry(Protocol):
    """A registry, embedded or on a server. Nothing here blocks the event loop. Every method may raise
    RegistryUnavailable, and VersionNotFound for a name, version or alias that it does not have."""

    async def resolve(self, name: str, alias: str) -> RegisteredVersion:
        """The version that an alias points to now. To be asked once; what follows uses the version."""
        ...

    async def fetch(self, version: RegisteredVersion, folder: Path) -> Path:
        """Bring the version's files into `folder`, whole or not at all, and return the model's root there.

        What was in `folder` is replaced. BadModelFile for files that break the bounds, or that are not
        plain files. What is in them is not looked at: see `vetting`.
        """
        ...

    async def models(self) -> list[RegisteredModel]:
        """Every registered model, by name."""
        ...

    async def versions(self, name: str) -> list[RegisteredVersion]:
        """The versions of a model, newest first, with the metrics of the runs that made them."""
        ...

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version, wherever it pointed before."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads."""
        ...
