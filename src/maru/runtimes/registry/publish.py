"""Registering a trained model."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maru.runtimes.registry.answers import READY
from maru.runtimes.registry.mlflow_store import MlflowStore, asked, registered
from maru.runtimes.registry.names import SHA256, checked_alias
from maru.runtimes.registry.types import RegisteredVersion

BATCH = 100
"""As many parameters MLflow takes at once."""


def publish(
    registry: str | Path,
    name: str,
    onnx_bytes: bytes,
    *,
    seq_len: int,
    n_features: int,
    metadata: Mapping[str, Any],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    experiment: str,
    alias: str | None = None,
) -> RegisteredVersion:
    """Log a graph of [N, seq_len, n_features] float32 with its run and register it as the next version of `name`.

    `registry` is an MLflow URI, or the folder of the embedded registry. `metadata` travels inside of the
    model (JSON values: features, close_index, interval, …) and `params` and `metrics` with its run. With an
    `alias` that alias points to the new version in the end; without, none moves. Blocks for seconds, and in a
    new folder for some more. RegistryUnavailable when the registry can't be written.
    """
    store = MlflowStore.of(registry)
    alias = checked_alias(alias) if alias is not None else None
    facts = {**metadata, "seq_len": seq_len, "n_features": n_features}
    with asked("the registry did not take the model"), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save(onnx_bytes, folder, facts, seq_len, n_features)
        checksum = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        with _run(store, experiment, name) as run:
            _log(store, run, params, metrics)
            version = _register(store, name, folder, run, {SHA256: checksum})
        if alias is not None:
            store.client.set_registered_model_alias(name, alias, version.version)
        made = store.client.get_model_version(name, version.version)
        return registered(made, metrics={key: float(value) for key, value in metrics.items()})


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
    given = TensorSpec(number, (-1, seq_len, n_features), name=graph.graph.input[0].name)
    answered = TensorSpec(number, (-1, *[1] * (len(graph.graph.output[0].type.tensor_type.shape.dim) - 1)))
    mlflow.onnx.save_model(
        graph,
        str(folder),
        signature=ModelSignature(inputs=Schema([given]), outputs=Schema([answered])),
        metadata=dict(metadata),
        pip_requirements=["onnxruntime", "numpy"],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )


@contextmanager
def _run(store: MlflowStore, experiment: str, name: str) -> Iterator[Any]:
    tags = {"mlflow.source.name": "maru"}
    run = store.client.create_run(_experiment(store, experiment), run_name=name, tags=tags)
    try:
        yield run
    except BaseException:
        store.client.set_terminated(run.info.run_id, "FAILED")
        raise
    store.client.set_terminated(run.info.run_id)


def _experiment(store: MlflowStore, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = store.client.get_experiment_by_name(name)
    if found is None:
        location = store.artifacts.as_uri() if store.artifacts else None
        try:
            return str(store.client.create_experiment(name, artifact_location=location))
        except MlflowException:  # somebody else made it at this moment
            found = store.client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _log(store: MlflowStore, run: Any, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1e3)
    given = [Param(key, str(value)) for key, value in params.items()]
    for start in range(0, len(given), BATCH):
        store.client.log_batch(run.info.run_id, params=given[start : start + BATCH])
    finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
    store.client.log_batch(run.info.run_id, metrics=[Metric(key, value, now, 0) for key, value in finite.items()])


def _register(store: MlflowStore, name: str, folder: Path, run: Any, tags: dict[str, str]) -> Any:
    from mlflow.exceptions import MlflowException

    client = store.client
    logged = client.create_logged_model(run.info.experiment_id, name=name, source_run_id=run.info.run_id)
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, READY)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # A database would look `models:/…` up in the process's global store, which may be another.
    source = f"models:/{logged.model_id}" if store.server else logged.artifact_location
    return client.create_model_version(name, source, run_id=run.info.run_id, tags=tags, model_id=logged.model_id)
