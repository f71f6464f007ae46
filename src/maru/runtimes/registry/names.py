"""The names that MLflow's registry takes, and those that may be shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from maru.runtimes.registry.types import VersionNotFound

SHA256 = "maru.sha256"
"""The tag of a version under which `publish` keeps the checksum of its graph."""

MOST_MEASURED = 50
"""The versions of a model, newest first, whose runs are asked for their metrics when they are listed."""

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"})
"""MLflow's codes for what is not there. INVALID_PARAMETER_VALUE is what it says to an unknown alias."""

_ALIAS = re.compile(r"[\w-]{1,255}")
_VERSION = re.compile(r"[0-9]{1,18}")
_LOGGED = re.compile(r"m-[0-9a-f]{32}")


def checked_alias(alias: str) -> str:
    """The alias, if it may be one. VersionNotFound, which does not repeat it, if no alias can be called that."""
    if not _ALIAS.fullmatch(alias):
        raise VersionNotFound("an alias is made of letters, digits, - and _, 255 at most")
    return alias


def checked_name(name: str) -> str:
    """The name of a model, if it may be one. VersionNotFound, which does not repeat it, otherwise."""
    if not name.strip() or not name.isprintable() or len(name) > 256 or set(name) & set("/:@'\"\\"):
        raise VersionNotFound("no registered model can have that name")
    return name


def checked_version(version: str) -> str:
    """The number of a version. VersionNotFound, which does not repeat it, for anything else."""
    if not _VERSION.fullmatch(version):
        raise VersionNotFound("a version is a whole number")
    return version


def filter_by(name: str) -> str:
    """MLflow's filter for the versions of one model, whose name was checked."""
    return f"name='{name}'"


def shown_source(source: str) -> str:
    """Where a version comes from, for people: without credentials, and of a folder its last part only."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return ""
    pieces = [piece for piece in parts.path.split("/") if piece]
    if parts.scheme in ("models", "runs", "mlflow-artifacts"):
        return f"{parts.scheme}:/{'/'.join(pieces)}"
    for piece in pieces:
        if _LOGGED.fullmatch(piece):
            return f"models:/{piece}"
    if parts.scheme and parts.scheme != "file":
        return f"{parts.scheme}://{parts.hostname or ''}/{'/'.join(pieces)}"
    return f"file:{pieces[-1]}" if pieces else ""
