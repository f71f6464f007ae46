"""MLflow's own client. Only here and in `publish` mlflow is imported, and when it is used: it takes a second."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from maru.runtimes.errors import BadModelFile, ModelUnavailable
from maru.runtimes.registry.answers import READY
from maru.runtimes.registry.names import (
    MISSING,
    MOST_MEASURED,
    checked_alias,
    checked_name,
    filter_by,
    shown_source,
)
from maru.runtimes.registry.staging import CHUNK, Staging
from maru.runtimes.registry.types import (
    RegisteredModel,
    RegisteredVersion,
    RegistryError,
    RegistryUnavailable,
    VersionNotFound,
)

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""How MLflow is told to call nobody, print nothing, and wait no minutes for a server, unless it was told otherwise."""


class MlflowStore:
    """What MLflow keeps at one URI: its database, or a `server`. Everything here blocks."""

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        """`artifacts` is where new experiments keep their files; None where MLflow decides."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with asked("the registry can't be opened"):
            from mlflow import MlflowClient

            for noisy in ("alembic", "mlflow"):
                logging.getLogger(noisy).setLevel(logging.ERROR)
            self.client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.server = uri.startswith(("http://", "https://"))
        self.artifacts = artifacts

    @classmethod
    def of(cls, registry: str | Path) -> Self:
        """The store at an MLflow URI, or the embedded one in a folder, which is made if it isn't there."""
        if isinstance(registry, str):
            return cls(registry)
        folder = registry.absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (folder / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not database(folder).exists():
                    cls._make(folder)
        except OSError as error:
            raise RegistryUnavailable("the registry's folder can't be written to") from error
        return cls(_url(database(folder)), folder / "artifacts")

    @classmethod
    def _make(cls, folder: Path) -> None:
        """A new database, which is there when it is whole: MLflow makes it in seconds and by fifty steps, and can
        neither take up where it was interrupted nor do so twice at a time."""
        for interrupted in folder.glob(".new-*"):
            shutil.rmtree(interrupted, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
            new = database(Path(temporary))
            cls(_url(new))
            new.rename(database(folder))

    def resolve(self, name: str, alias: str) -> RegisteredVersion:
        alias = checked_alias(alias)
        with asked(f"the registry has no model {checked_name(name)} with the alias {alias}"):
            return registered(self.client.get_model_version_by_alias(name, alias))

    def fetch(self, version: RegisteredVersion, staging: Staging) -> None:
        with asked(f"the registry has no version {version.version} of {checked_name(version.name)}"):
            location = self.client.get_model_version_download_uri(version.name, version.version)
        if (folder := _local(location)) is None:
            return download(location, staging)
        try:
            staging.copy(folder)
        except OSError as error:
            raise ModelUnavailable(f"the files of version {version.version} are gone from the registry") from error

    def models(self) -> list[RegisteredModel]:
        with asked("the registry can't be listed"):
            found = self._pages(self.client.search_registered_models)
        return [
            RegisteredModel(
                model.name,
                {alias: str(version) for alias, version in model.aliases.items()},
                model.creation_timestamp / 1e3,
                model.description or "",
            )
            for model in found
        ]

    def versions(self, name: str) -> list[RegisteredVersion]:
        with asked(f"the registry has no model {checked_name(name)}"):
            aliases: dict[str, list[str]] = {}
            for alias, version in self.client.get_registered_model(name).aliases.items():
                aliases.setdefault(str(version), []).append(alias)
            found = self._pages(self.client.search_model_versions, filter_by(name))
            found = [version for version in found if version.status == READY]
            found.sort(key=lambda version: int(version.version), reverse=True)
            return [
                registered(
                    version,
                    aliases.get(str(version.version), []),
                    self._metrics(version.run_id) if rank < MOST_MEASURED else {},
                )
                for rank, version in enumerate(found)
            ]

    def set_alias(self, name: str, alias: str, version: str) -> None:
        alias = checked_alias(alias)
        with asked(f"the registry has no version {version[:20]} of {checked_name(name)}"):
            self.client.set_registered_model_alias(name, alias, version)

    def _metrics(self, run: str | None) -> dict[str, float]:
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_run(run).data.metrics) if run else {}
        except MlflowException:  # the run may be deleted; the version stays
            return {}

    @staticmethod
    def _pages(search: Any, *given: Any) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = search(*given, page_token=token)
            found += page
            token = page.token
            if not token:
                return found


def registered(found: Any, aliases: list[str] | None = None, metrics: Any = None) -> RegisteredVersion:
    """MLflow's version as ours. RegistryUnavailable when it is not READY."""
    if found.status != READY:
        raise RegistryUnavailable(f"version {found.version} of {found.name} is not ready in the registry")
    return RegisteredVersion(
        found.name,
        str(found.version),
        shown_source(found.source or ""),
        tuple(sorted(found.aliases if aliases is None else aliases)),
        found.run_id or None,
        found.creation_timestamp / 1e3,
        dict(found.tags),
        metrics or {},
    )


def database(folder: Path) -> Path:
    """The embedded registry's database."""
    return folder / "mlflow.db"


def download(location: str, staging: Staging) -> None:
    """The files at a place that MLflow knows how to reach (`s3://…`), with what is installed and configured for it."""
    with asked("the registry's files can't be had"), tempfile.TemporaryDirectory() as temporary:
        from mlflow.artifacts import download_artifacts
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(location)
        waiting = [""]
        while waiting:
            for entry in repository.list_artifacts(waiting.pop() or None):
                staging.parts(entry.path)
                if entry.is_dir:
                    waiting.append(entry.path)
                    continue
                whole = f"{location.rstrip('/')}/{entry.path}"
                got = Path(download_artifacts(artifact_uri=whole, dst_path=temporary))
                with staging.file(entry.path) as write, got.open("rb") as opened:
                    while chunk := opened.read(CHUNK):
                        write(chunk)
                got.unlink()


def _url(path: Path) -> str:
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string()


def _local(location: str) -> Path | None:
    """The folder of this machine that a location means, if it means one."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(location) if not parts.scheme else None


@contextmanager
def asked(failure: str) -> Iterator[None]:
    """What MLflow, its database or its network raise becomes a RegistryError; `failure` says what was asked."""
    try:
        yield
    except (RegistryError, BadModelFile, ModelUnavailable, ValueError):
        raise
    except Exception as error:
        if getattr(error, "error_code", "") in MISSING:
            raise VersionNotFound(failure) from error
        if "out-of-date database schema" in str(error):
            raise RegistryUnavailable(
                f"{failure}: its database is of another MLflow; back it up, and run `mlflow db upgrade` on it"
            ) from error
        if isinstance(error, ModuleNotFoundError):
            raise RegistryUnavailable(f"{failure}: the package {error.name} is not installed") from error
        raise RegistryUnavailable(f"{failure} ({type(error).__name__})") from error
