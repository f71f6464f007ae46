"""The same model through the Open Inference Protocol's own client."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tests.contracts.forecast.graphs import FEATURES, UNANSWERABLE, window
from tritonclient.utils import InferenceServerException

CLOSES = [100.0, 45_000.5, 7.25]


@pytest.fixture
def client(forecast):
    with triton.InferenceServerClient(f"127.0.0.1:{forecast.port}") as client:
        yield client


def asked(given: object, datatype: str = "FP32", binary: bool = True) -> triton.InferInput:
    array = np.array(given, {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64}[datatype])
    tensor = triton.InferInput("X", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
def test_windows(client, binary) -> None:
    windows = [window(close) for close in CLOSES]
    output = triton.InferRequestedOutput("pred_btc_close_next", binary_data=binary)
    result = client.infer("forecast", [asked(windows, binary=binary)], outputs=[output])
    assert result.as_numpy("pred_btc_close_next").tolist() == [[close + 1] for close in CLOSES]
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64"])
def test_one_window_of_any_numbers(client, datatype) -> None:
    result = client.infer("BTC_LSTM_Production", [asked(window(50.0), datatype)], model_version="1")
    assert result.as_numpy("pred_btc_close_next").tolist() == [[51.0]]


def test_metadata(client) -> None:
    metadata = client.get_model_metadata("forecast")
    assert metadata["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 12, 18]}]
    assert metadata["outputs"] == [{"name": "pred_btc_close_next", "datatype": "FP32", "shape": [-1, 1]}]
    assert metadata["versions"] == ["1"] and metadata["parameters"]["features"] == FEATURES
    assert client.is_server_ready() and client.is_model_ready("forecast") and client.is_model_ready("forecast", "1")


@pytest.mark.parametrize(
    "given", [window()[1:], [row[1:] for row in window()], [[window()]], [], [[[]]], np.zeros((0, 12, 18)), 5.0]
)
def test_other_shapes_are_refused(client, given) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer("forecast", [asked(given)])
    assert told.value.status() == "400"


def test_what_is_no_finite_number(client) -> None:
    for given, datatype in ((window(float("inf")), "FP32"), (window(float("nan")), "FP64"), (window(1e39), "FP64")):
        with pytest.raises(InferenceServerException, match="not finite"):
            client.infer("forecast", [asked(given, datatype)])
    with pytest.raises(InferenceServerException, match="could not answer"):
        client.infer("forecast", [asked(window(UNANSWERABLE))])


def test_others_are_not_found(forecast, client) -> None:
    with pytest.raises(InferenceServerException):
        client.infer("forecast", [asked(window())], model_version="2")
    assert httpx.get(forecast.url + "/v2/models/nope").status_code == 404
