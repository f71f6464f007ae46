"""The service over real registries: the embedded one, and a server that tells when an alias moves."""

from __future__ import annotations

import asyncio
import base64
import os
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.conftest import Server
from tests.contracts.forecast.conftest import forecasting
from tests.contracts.forecast.graphs import CLOSE, FEATURES, N_FEATURES, SEQ_LEN, graph, window
from tests.runtimes.registry.conftest import mlflow_server

from maru.runtimes.registry.open import embedded, open_registry
from maru.runtimes.registry.publish import publish

NAME = "BTC_LSTM_Production"


def publish_one(registry: str | Path, added: float, alias: str | None) -> str:
    made = publish(
        registry,
        NAME,
        graph(added),
        seq_len=SEQ_LEN,
        n_features=N_FEATURES,
        metadata={"features": FEATURES, "close_index": CLOSE, "interval": "1h"},
        params={},
        metrics={"mase": 0.99},
        experiment="tests",
        alias=alias,
    )
    return made.version


@pytest.mark.slow
def test_the_embedded_one(tmp_path) -> None:
    """From nothing registered to two versions, of which the second is followed as the alias moves."""

    def ask() -> tuple[float, str, str]:
        body = httpx.post(server.url + "/predict", json={"X": window(100.0)}, timeout=30).json()
        return body["pred_btc_close_next"], body["model_alias"], body["model_version"]

    async def move(version: str) -> None:
        registry = open_registry(None, tmp_path)
        await registry.set_alias(NAME, "staging", version)
        await registry.aclose()

    with forecasting(tmp_path, tracking_uri=None, configuration={"ready_every_s": 0.5, "poll_s": 0.5}) as server:
        server.wait("/health")
        assert httpx.post(server.url + "/predict", json={"X": window()}).status_code == 503
        nothing = httpx.post(server.url + "/reload")
        assert nothing.status_code == 500 and nothing.json()["detail"].startswith("모델 리로드 실패: ")
        first = publish_one(embedded(tmp_path), 1.0, "staging")
        server.wait()
        assert ask() == (101.0, "staging", first)
        second = publish_one(embedded(tmp_path), 2.0, None)
        asyncio.run(move(second))
        server.wait_until(lambda: ask() == (102.0, "staging", second), 30)
        asyncio.run(move(first))
        assert httpx.post(server.url + "/reload").json()["model_version"] == first
        assert ask() == (101.0, "staging", first)
        health = httpx.get(server.url + "/health").json()
        assert health["features"] == FEATURES and "/" not in health["source"].removeprefix("models:/")
        assert str(tmp_path) not in httpx.get(server.url + "/v2/models/forecast").text
        assert server.stop() == 0


def is_served(server: Server, version: str) -> bool:
    return httpx.get(server.url + "/health").json()["model_version"] == version


@pytest.mark.slow
def test_a_server_that_sends_its_events(tmp_path, monkeypatch) -> None:
    """A real `mlflow server` with a webhook: the alias is never asked for, and followed all the same."""
    python = os.environ.get("MARU_MLFLOW_PYTHON")
    if not python:
        pytest.skip("MARU_MLFLOW_PYTHON names no interpreter with the full mlflow")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", base64.urlsafe_b64encode(bytes(32)).decode())
    folder = tmp_path / "mlflow"
    folder.mkdir()
    secret = "events-are-signed-with-this"
    with (
        mlflow_server(python, folder, ["--artifacts-destination", f"{folder}/artifacts"]) as url,
        forecasting(
            tmp_path, tracking_uri=url, hook_secret=secret, configuration={"ready_every_s": 1000, "ready_for_s": 2000}
        ) as server,
    ):
        server.wait("/health")
        hook = {
            "name": "maru",
            "url": f"{server.url}/hooks/mlflow",
            "events": [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}],
            "secret": secret,
        }
        httpx.post(f"{url}/api/2.0/mlflow/webhooks", json=hook, timeout=30).raise_for_status()
        server.wait_until(lambda: "can't be loaded" in server.log(), 20)
        for added in (1.0, 2.0):
            version = publish_one(url, added, "staging")
            server.wait_until(partial(is_served, server, version), 20)
            body = httpx.post(server.url + "/predict", json={"X": window(100.0)}).json()
            assert (body["pred_btc_close_next"], body["model_version"]) == (100.0 + added, version)
