"""MLflow's own client. The one file that imports mlflow, and only when it is used: it takes a second to import."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from maru.runtimes.errors import BadModelFile, ModelUnavailable
from maru.runtimes.registry.answers import READY
from maru.runtimes.registry.names import (
    MISSING,
    MOST_MEASURED,
    SHA256,
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

BATCH = 100
"""As many parameters MLflow takes at once."""


class MlflowStore:
    """What MLflow keeps at one URI: its database, or a server. Everything here blocks."""

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        """`artifacts` is where new experiments keep their files; None where MLflow decides."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with _asked("the registry can't be opened"):
            from mlflow import MlflowClient

            for noisy in ("alembic", "mlflow"):
                logging.getLogger(noisy).setLevel(logging.ERROR)
            self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._server = uri.startswith(("http://", "https://"))
        self._artifacts = artifacts

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
        with _asked(f"the registry has no model {checked_name(name)} with the alias {alias}"):
            return self._version(self._client.get_model_version_by_alias(name, alias))

    def fetch(self, version: RegisteredVersion, staging: Staging) -> None:
        with _asked(f"the registry has no version {version.version} of {checked_name(version.name)}"):
            location = self._client.get_model_version_download_uri(version.name, version.version)
        if (folder := _local(location)) is None:
            return download(location, staging)
        try:
            staging.copy(folder)
        except OSError as error:
            raise ModelUnavailable(f"the files of version {version.version} are gone from the registry") from error

    def models(self) -> list[RegisteredModel]:
        with _asked("the registry can't be listed"):
            found = self._pages(self._client.search_registered_models)
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
        with _asked(f"the registry has no model {checked_name(name)}"):
            aliases: dict[str, list[str]] = {}
            for alias, version in self._client.get_registered_model(name).aliases.items():
                aliases.setdefault(str(version), []).append(alias)
            found = self._pages(self._client.search_model_versions, filter_by(name))
            found = [version for version in found if version.status == READY]
            found.sort(key=lambda version: int(version.version), reverse=True)
            return [
                self._version(
                    version,
                    aliases.get(str(version.version), []),
                    self._metrics(version.run_id) if rank < MOST_MEASURED else {},
                )
                for rank, version in enumerate(found)
            ]

    def set_alias(self, name: str, alias: str, version: str) -> None:
        alias = checked_alias(alias)
        with _asked(f"the registry has no version {version[:20]} of {checked_name(name)}"):
            self._client.set_registered_model_alias(name, alias, version)

    def publish(
        self,
        name: str,
        onnx_bytes: bytes,
        *,
        seq_len: int,
        n_features: int,
        metadata: Mapping[str, Any],
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        experiment: str,
        alias: str | None,
    ) -> RegisteredVersion:
        """See `publish.publish`."""
        alias = checked_alias(alias) if alias is not None else None
        facts = {**metadata, "seq_len": seq_len, "n_features": n_features}
        with _asked("the registry did not take the model"), tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            save(onnx_bytes, folder, facts, seq_len, n_features)
            checksum = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
            with self._run(self._experiment(experiment), name) as run:
                self._log(run.info.run_id, params, metrics)
                version = self._register(name, folder, run, {SHA256: checksum})
            if alias is not None:
                self._client.set_registered_model_alias(name, alias, version.version)
            made = self._client.get_model_version(name, version.version)
            return self._version(made, metrics={key: float(value) for key, value in metrics.items()})

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = self._artifacts.as_uri() if self._artifacts else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:  # somebody else made it at this moment
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    @contextmanager
    def _run(self, experiment: str, name: str) -> Iterator[Any]:
        run = self._client.create_run(experiment, run_name=name, tags={"mlflow.source.name": "maru"})
        try:
            yield run
        except BaseException:
            self._client.set_terminated(run.info.run_id, "FAILED")
            raise
        self._client.set_terminated(run.info.run_id)

    def _log(self, run: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1e3)
        given = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(given), BATCH):
            self._client.log_batch(run, params=given[start : start + BATCH])
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._client.log_batch(run, metrics=[Metric(key, value, now, 0) for key, value in finite.items()])

    def _register(self, name: str, folder: Path, run: Any, tags: dict[str, str]) -> Any:
        from mlflow.exceptions import MlflowException

        logged = self._client.create_logged_model(run.info.experiment_id, name=name, source_run_id=run.info.run_id)
        self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, READY)
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # A database would look `models:/…` up in the process's global store, which may be another.
        source = f"models:/{logged.model_id}" if self._server else logged.artifact_location
        return self._client.create_model_version(
            name, source, run_id=run.info.run_id, tags=tags, model_id=logged.model_id
        )

    def _metrics(self, run: str | None) -> dict[str, float]:
        from mlflow.exceptions import MlflowException

        try:
            return dict(self._client.get_run(run).data.metrics) if run else {}
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

    @staticmethod
    def _version(found: Any, aliases: list[str] | None = None, metrics: Any = None) -> RegisteredVersion:
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


def save(onnx_bytes: bytes, folder: Path, metadata: Mapping[str, Any], seq_len: int, n_features: int) -> None:
    """The graph as an MLflow model in `folder`, as `mlflow.onnx` keeps one. ValueError for no sound graph."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    try:
        graph = onnx.load_model_from_string(onnx_bytes)
        onnx.checker.check_model(graph)
    except Exception as error:  # protobuf's and onnx's own, which share no base
        raise ValueError("the bytes are no sound ONNX model") from error
    number = np.dtype("float32")
    asked = TensorSpec(number, (-1, seq_len, n_features), name=graph.graph.input[0].name)
    given = TensorSpec(number, (-1, *[1] * (len(graph.graph.output[0].type.tensor_type.shape.dim) - 1)))
    mlflow.onnx.save_model(
        graph,
        str(folder),
        signature=ModelSignature(inputs=Schema([asked]), outputs=Schema([given])),
        metadata=dict(metadata),
        pip_requirements=["onnxruntime", "numpy"],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )


def download(location: str, staging: Staging) -> None:
    """The files at a place that MLflow knows how to reach (`s3://…`), with what is installed and configured for it."""
    with _asked("the registry's files can't be had"), tempfile.TemporaryDirectory() as temporary:
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
def _asked(failure: str) -> Iterator[None]:
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
