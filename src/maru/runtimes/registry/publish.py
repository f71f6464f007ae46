"""Registering a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maru.runtimes.registry.types import RegisteredVersion


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
    from maru.runtimes.registry.mlflow_store import MlflowStore

    return MlflowStore.of(registry).publish(
        name,
        onnx_bytes,
        seq_len=seq_len,
        n_features=n_features,
        metadata=metadata,
        params=params,
        metrics=metrics,
        experiment=experiment,
        alias=alias,
    )
