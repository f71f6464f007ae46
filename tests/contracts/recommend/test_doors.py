"""The same recommender through the Open Inference Protocol's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tests.contracts.recommend.conftest import RecommendServer, clicks
from tritonclient.utils import InferenceServerException

SESSIONS = [[1001, 1002, 1003], [1004], []]
SCORES = ("clicks", "carts", "orders", "combined")


@pytest.fixture
def client(recommend: RecommendServer) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{recommend.port}") as client:
        yield client


def tensors(sessions: list[list[int]], datatype: str = "INT64", binary: bool = True, **changes: Any) -> list[Any]:
    width = max(map(len, sessions))
    aids, types = np.zeros((len(sessions), width)), np.full((len(sessions), width), -1)
    for row, items in enumerate(sessions):
        aids[row, : len(items)] = items
        types[row, : len(items)] = 0
    ts = np.tile(1_659_304_800 + 60 * np.arange(width), (len(sessions), 1))
    made = []
    for name, values in ({"aids": aids, "ts": ts, "types": types} | changes).items():
        array = np.asarray(values).astype({"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}[datatype])
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    return made


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
def test_sessions(recommend: RecommendServer, client: Any, binary: bool, datatype: str) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("recommendations", *SCORES)]
    asked = tensors(SESSIONS, datatype, binary)
    result = client.infer("recommend", asked, outputs=outputs, parameters={"top_k": 7})
    assert result.get_response()["model_version"] == "v1"
    for row, items in enumerate(SESSIONS):
        plain = recommend.recommend(events=clicks(*items), top_k=7)
        assert result.as_numpy("recommendations")[row].tolist() == plain["recommendations"]
        for name in SCORES:
            np.testing.assert_allclose(result.as_numpy(name)[row], plain["scores"][name], rtol=1e-5)


def test_what_the_catalogue_has_not_is_filled_up(client: Any) -> None:
    parameters = {"top_k": 10, "include": [1001, 1002, 1005]}
    result = client.infer("recommend", tensors([[1001, 1002], [1003]]), parameters=parameters)
    aids, combined = result.as_numpy("recommendations"), result.as_numpy("combined")
    assert aids[0].tolist() == [1005, -1, -1] and sorted(aids[1].tolist()) == [1001, 1002, 1005]
    assert combined[0, 1:].tolist() == [0, 0]


def test_metadata(client: Any) -> None:
    metadata = client.get_model_metadata("recommend")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["aids", "ts", "types"]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["recommendations", *SCORES]
    assert metadata["versions"] == ["v1"] and metadata["parameters"]["version"] == "v1"
    assert client.is_server_ready() and client.is_model_ready("recommend") and client.is_model_ready("recommend", "v1")


@pytest.mark.parametrize(
    "changes",
    [
        {"types": [[3]]}, {"types": [[-2]]}, {"ts": [[-1]]}, {"aids": [[1, 2]]}, {"aids": [[[1]]]},
        {"aids": np.zeros((0, 1)), "ts": np.zeros((0, 1)), "types": np.zeros((0, 1))},
        {name: np.zeros((1001, 1)) for name in ("aids", "ts", "types")},
        {name: np.zeros((1, 5001)) for name in ("aids", "ts", "types")},
    ],
)  # fmt: skip
def test_tensors_that_are_no_sessions_are_refused(client: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer("recommend", tensors([[1001]], **changes))
    assert told.value.status() == "400"


def test_other_kinds_and_options_are_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="integers"):
        client.infer("recommend", tensors([[1001]], "FP32"))
    with pytest.raises(InferenceServerException, match="top_k"):
        client.infer("recommend", tensors([[1001]]), parameters={"top_k": 0})
    with pytest.raises(InferenceServerException, match="missing"):
        client.infer("recommend", tensors([[1001]])[:2])


def test_others_are_not_found(recommend: RecommendServer, client: Any) -> None:
    with pytest.raises(InferenceServerException):
        client.infer("recommend", tensors([[1001]]), model_version="v2")
    assert httpx.get(recommend.url + "/v2/models/nope").status_code == 404
