"""What both registries promise, the embedded one and that of a real MLflow server."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from maru.engine.types import Limits
from maru.runtimes.errors import BadModelFile
from maru.runtimes.registry.local import LocalRegistry
from maru.runtimes.registry.names import SHA256
from maru.runtimes.registry.rest import RestRegistry
from maru.runtimes.registry.types import Bounds, RegisteredVersion, Registry, RegistryError, VersionNotFound
from maru.runtimes.registry.vetting import Manifest
from maru.services.forecast.model import Forecaster

from .conftest import published
from .graphs import CLOSE, graph

T = TypeVar("T")
Open = Callable[..., Registry]


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest) -> str | Path:
    found: str | Path = request.getfixturevalue(request.param)
    return found


def opened(store: str | Path, bounds: Bounds | None = None) -> Registry:
    return RestRegistry(store, bounds=bounds) if isinstance(store, str) else LocalRegistry(store, bounds)


def ask(store: str | Path, question: Callable[[Registry], Awaitable[T]], bounds: Bounds | None = None) -> T:
    async def asked() -> T:
        registry = opened(store, bounds)
        try:
            return await question(registry)
        finally:
            await registry.aclose()

    return asyncio.run(asked())


def test_an_alias_is_resolved_and_its_files_come_whole(store: str | Path, tmp_path: Path) -> None:
    async def fetched(registry: Registry) -> tuple[RegisteredVersion, Path]:
        version = await registry.resolve("BTC_LSTM", "staging")
        return version, await registry.fetch(version, tmp_path / "there" / "model")

    version, root = ask(store, fetched)

    assert (version.name, version.version, version.aliases) == ("BTC_LSTM", "1", ("staging",))
    assert version.source.startswith("models:/m-")
    assert hashlib.sha256((root / "model.onnx").read_bytes()).hexdigest() == version.tags[SHA256]
    manifest = Manifest.read(root)
    assert manifest.metadata["features"] == [f"f{place}" for place in range(18)]
    assert (manifest.metadata["seq_len"], manifest.metadata["close_index"]) == (12, 3)
    assert manifest.graph(version.tags[SHA256]).digest == version.tags[SHA256]
    assert [entry.name for entry in (tmp_path / "there").iterdir()] == ["model"]
    assert root.stat().st_mode & 0o077 == 0


def test_what_is_registered_is_listed(store: str | Path) -> None:
    models = ask(store, lambda registry: registry.models())
    versions = ask(store, lambda registry: registry.versions("BTC_LSTM"))

    (model,) = [model for model in models if model.name == "BTC_LSTM"]
    assert model.aliases == {"staging": "1"}
    assert [version.version for version in versions] == ["2", "1"]
    assert [version.metrics for version in versions] == [{"mase": 0.8}, {"mase": 0.9}]
    assert [version.aliases for version in versions] == [(), ("staging",)]
    assert all(version.created and version.created > 1.7e9 and version.run_id for version in versions)


def test_an_alias_moves(store: str | Path) -> None:
    name = "Moves"
    first, second = published(store, name, alias="운영"), published(store, name)

    async def moved(registry: Registry) -> list[str]:
        seen = [(await registry.resolve(name, "운영")).version]
        await registry.set_alias(name, "운영", second.version)
        return [*seen, (await registry.resolve(name, "운영")).version]

    assert ask(store, moved) == [first.version, second.version] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("BTC_LSTM", "production"),
        ("BTC_LSTM", "Staging"),
        ("BTC_LSTM", ""),
        ("BTC_LSTM", "staging' OR '1'='1"),
        ("BTC_LSTM", "../staging"),
        ("BTC_LSTM", "s" * 300),
        ("BTC", "staging"),
        ("", "staging"),
        ("BTC_LSTM' OR name LIKE '%", "staging"),
        ("../BTC_LSTM", "staging"),
        ("BTC\nLSTM", "staging"),
    ],
)
def test_what_is_not_there_is_not_found(store: str | Path, name: str, alias: str) -> None:
    with pytest.raises(VersionNotFound) as failure:
        ask(store, lambda registry: registry.resolve(name, alias))
    assert not {"'", "\n", ".."} & set(str(failure.value)) and len(str(failure.value)) < 200


@pytest.mark.parametrize("version", ["9", "0", "-1", "1.0", "latest", "1' OR '1'='1", ""])
def test_an_alias_does_not_move_to_a_version_that_is_not_there(store: str | Path, version: str) -> None:
    with pytest.raises(VersionNotFound):
        ask(store, lambda registry: registry.set_alias("BTC_LSTM", "staging", version))
    assert ask(store, lambda registry: registry.resolve("BTC_LSTM", "staging")).version == "1"


def test_the_versions_of_no_model_are_not_found(store: str | Path) -> None:
    with pytest.raises(VersionNotFound):
        ask(store, lambda registry: registry.versions("nothing of that name"))


def test_what_was_in_the_folder_is_replaced(store: str | Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")

    version = ask(store, lambda registry: registry.resolve("BTC_LSTM", "staging"))
    ask(store, lambda registry: registry.fetch(version, folder))

    assert "old" not in {entry.name for entry in folder.iterdir()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("bounds", [Bounds(max_bytes=300), Bounds(max_files=2), Bounds(max_depth=0)])
def test_a_model_over_the_bounds_is_refused_and_changes_nothing(
    store: str | Path, tmp_path: Path, bounds: Bounds
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    version = ask(store, lambda registry: registry.resolve("BTC_LSTM", "staging"))

    with pytest.raises(BadModelFile):
        ask(store, lambda registry: registry.fetch(version, tmp_path / "model"), bounds)

    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "old").read_text() == "old"


def test_a_version_that_is_gone_is_not_found(store: str | Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        ask(store, lambda registry: registry.fetch(RegisteredVersion("BTC_LSTM", "77", ""), tmp_path / "model"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_others_log_with_mlflows_defaults_is_served(server: str, mlflow_python: str, tmp_path: Path) -> None:
    """Their weights lie beside the graph, and they name execution providers that are not here."""
    script = (
        "import sys, mlflow, onnx, numpy; from onnx import numpy_helper\n"
        "mlflow.set_tracking_uri(sys.argv[1]); model = onnx.load(sys.argv[2])\n"
        "stored = next(each for each in model.graph.initializer if each.name == 'more')\n"
        "stored.CopyFrom(numpy_helper.from_array(numpy.full((512, 1), 3, 'float32'), 'more'))\n"
        "axis = onnx.helper.make_tensor('axis', onnx.TensorProto.INT64, [1], [0])\n"
        "model.graph.node.insert(0, onnx.helper.make_node('ReduceMax', ['more'], ['most'], axes=[0], keepdims=0))\n"
        "model.graph.node[-1].input[1] = 'most'\n"
        "mlflow.onnx.log_model(model, name='theirs', registered_model_name='Theirs')\n"
        "mlflow.MlflowClient().set_registered_model_alias('Theirs', 'champion', 1)"
    )
    (tmp_path / "graph.onnx").write_bytes(graph(0.0))
    subprocess.run([mlflow_python, "-c", script, server, str(tmp_path / "graph.onnx")], check=True, timeout=120)

    async def fetched(registry: Registry) -> tuple[RegisteredVersion, Path]:
        version = await registry.resolve("Theirs", "champion")
        return version, await registry.fetch(version, tmp_path / "model")

    version, root = ask(server, fetched)
    assert any(path.suffix == ".data" or "data" in path.name for path in root.iterdir() if path.name != "MLmodel")
    model = Forecaster.spec(version, root, seq_len=12, n_features=18, limits=Limits()).load()
    model.warm()
    window = np.arange(216, dtype=np.float32).reshape(12, 18)
    assert model.predict([window]) == pytest.approx([float(window[-1, CLOSE]) + 3.0])
