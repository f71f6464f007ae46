"""The forecast service as people start it: on an empty home, beside the others, with keys, followed by its aliases."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.conftest import Server, maru, running

STARTER = Path(__file__).parents[3] / "starters" / "btc"
NAME = "BTC_LSTM_Production"
KEY = "a-key-for-the-tests-of-forecasts"


def window(last_close: float = 60_000.0) -> list[list[float]]:
    """Candles that go nowhere, with quiet indicators."""
    return [[last_close, last_close * 1.001, last_close * 0.999, last_close, 12.5, *[0.0] * 13]] * 12


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("forecast")


@pytest.fixture(scope="module")
def alone(home):
    with running(home, "serve", "forecast", MODEL_ALIAS_POLL_S="0.2") as server:
        server.wait("/readyz")
        yield server


def test_the_first_start_serves_the_starter(alone: Server) -> None:
    health = httpx.get(f"{alone.url}/health").json()
    assert {name: health[name] for name in ("status", "model_loaded", "model_alias", "model_version")} == {
        "status": "ok",
        "model_loaded": True,
        "model_alias": "staging",
        "model_version": "1",
    }
    described = json.loads((STARTER / "metadata.json").read_text())
    assert health["features"] == described["metadata"]["features"] and health["close_index"] == 3


def test_a_prediction_is_the_starters(alone: Server) -> None:
    import onnxruntime

    answer = httpx.post(f"{alone.url}/predict", json={"X": window()})
    assert answer.status_code == 200 and answer.headers["x-model-version"] == f"{NAME}@1"
    session = onnxruntime.InferenceSession(STARTER / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.array([window()], np.float32)})[0].item()
    assert answer.json() == {
        "pred_btc_close_next": pytest.approx(expected, rel=1e-6),
        "posted_to_callback": False,
        "model_alias": "staging",
        "model_version": "1",
    }
    assert abs(expected / 60_000 - 1) < 0.1, "a price"


def test_the_printed_request_works_as_it_is(alone: Server) -> None:
    alone.wait_until(lambda: "curl" in alone.log(), 20)
    (line,) = (line for line in alone.log().splitlines() if line.startswith("curl "))
    line = line.replace(f"http://localhost:{alone.port}", alone.url)
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert json.loads(run.stdout)["model_version"] == "1", run


def test_training_registers_and_the_server_follows(alone: Server, home: Path) -> None:
    csv = home / "some.csv"
    lines = (STARTER / "btc_usd_hourly_coinbase_2024.csv").read_text().splitlines()
    csv.write_text("\n".join(lines[:2001]) + "\n")
    trained = maru(
        home, "train", "forecast", str(csv), "--register", NAME, "--epochs", "2", "--alias", "staging", "--force"
    )
    assert trained.returncode == 0, trained.stderr
    assert "MASE" in trained.stderr and "version 2" in trained.stderr
    alone.wait_until(lambda: httpx.get(f"{alone.url}/health").json()["model_version"] == "2", 20)
    assert httpx.post(f"{alone.url}/predict", json={"X": window()}).json()["model_version"] == "2"

    listed = json.loads(maru(home, "models", "list", "--json").stdout)
    assert listed == [{"name": NAME, "aliases": {"staging": "2"}}]
    shown = json.loads(maru(home, "models", "show", NAME, "--json").stdout)
    assert [version["version"] for version in shown] == ["2", "1"]
    assert all("mase" in " ".join(version["metrics"]).lower() for version in shown)

    assert maru(home, "models", "promote", NAME).stdout.strip() == f"{NAME}@Production → 2"
    assert maru(home, "models", "alias", NAME, "staging", "1").returncode == 0
    alone.wait_until(lambda: httpx.get(f"{alone.url}/health").json()["model_version"] == "1", 20)
    reloaded = httpx.post(f"{alone.url}/reload", json={"alias": "Production"}).json()
    assert reloaded == {"status": "reloaded", "model_alias": "Production", "model_version": "2"}


def test_what_is_not_in_the_registry_is_told_in_one_line(alone: Server, home: Path) -> None:
    for arguments in (("show", "nothing"), ("alias", NAME, "staging", "99"), ("promote", NAME, "--from", "nowhere")):
        run = maru(home, "models", *arguments)
        assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1, run.stderr
        assert "Traceback" not in run.stderr and str(home) not in run.stderr


def test_with_a_key_predictions_and_reloads_need_it(tmp_path) -> None:
    with running(tmp_path, "serve", "forecast", API_KEYS=KEY) as server:
        server.wait("/readyz")
        for path, body in (("/predict", {"X": window()}), ("/reload", {}), ("/predict/batch", {"X": [window()]})):
            assert httpx.post(server.url + path, json=body).status_code == 401
            allowed = httpx.post(server.url + path, json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
            assert allowed.status_code == 200, allowed.text
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_it_stands_beside_the_others(graphs) -> None:
    with running(graphs, "up", API_KEYS=KEY) as server:
        server.wait("/readyz")
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{server.url}/forecast/predict", json={"X": window()}, headers=headers).status_code == 200
        assert httpx.post(f"{server.url}/embedding/embed", json={"text": "마루"}, headers=headers).status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_URI", "ftp://nowhere"),
        ("REGISTERED_MODEL_NAME", "a@b"),
        ("SEQ_LEN_REQUIRED", "0"),
        ("CALLBACK_SECRET", "whsec_!!!!!!!!!!!!!!!!!!!!!"),
        ("MLFLOW_WEBHOOK_SECRET", "hunter2"),
        ("ALLOWED_FETCH_HOSTS", "http://host"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_line_that_names_it(tmp_path, name, value) -> None:
    run = maru(tmp_path, "serve", "forecast", **{name: value})
    assert run.returncode == 2
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and name in lines[0], run.stderr
    assert value not in run.stderr or "SECRET" not in name


def test_a_public_address_needs_a_key_and_no_access_token_will_do(tmp_path) -> None:
    run = maru(tmp_path, "serve", "forecast", "--host", "0.0.0.0", SUPABASE_URL="https://project.supabase.co")
    assert run.returncode == 2 and "API_KEYS" in run.stderr and "SUPABASE" not in run.stderr
