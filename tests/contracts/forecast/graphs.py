"""Models whose answers are known, and the folders that MLflow keeps them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import yaml
from onnx import TensorProto, helper

SEQ_LEN = 12
N_FEATURES = 18
CLOSE = 3
FEATURES = [f"feature_{n}" for n in range(N_FEATURES)]
UNANSWERABLE = 2_000_000.0
"""A close for which no model of these has a finite answer."""


def graph(added: float, seq_len: int = SEQ_LEN, n_features: int = N_FEATURES) -> bytes:
    """The last close of each window and `added`; NaN where that close is beyond a million."""
    nodes = [
        helper.make_node("Gather", ["X", "last"], ["row"], axis=1),
        helper.make_node("Gather", ["row", "close"], ["price"], axis=1),
        helper.make_node("Sub", ["most", "price"], ["room"]),
        helper.make_node("Log", ["room"], ["log"]),
        helper.make_node("Mul", ["log", "zero"], ["nothing"]),
        helper.make_node("Add", ["price", "added"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [], [seq_len - 1]),
        helper.make_tensor("close", TensorProto.INT64, [1], [min(CLOSE, n_features - 1)]),
        helper.make_tensor("most", TensorProto.FLOAT, [], [1e6]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("added", TensorProto.FLOAT, [], [added]),
    ]
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", seq_len, n_features])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    made = helper.make_graph(nodes, "known", [given], [answer], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def folder(place: Path, model: bytes, **metadata: Any) -> None:
    """As `mlflow.onnx.log_model` writes it."""
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(model)
    facts = {"features": FEATURES, "seq_len": SEQ_LEN, "n_features": N_FEATURES, "close_index": CLOSE, "interval": "1h"}
    described = {
        "artifact_path": "model",
        "flavors": {
            "onnx": {
                "code": None, "data": "model.onnx", "onnx_version": onnx.__version__,
                "providers": ["CPUExecutionProvider"],
            },
            "python_function": {"data": "model.onnx", "loader_module": "mlflow.onnx", "python_version": "3.11.7"},
        },
        "metadata": {**facts, **metadata},
        "mlflow_version": "3.17.2",
    }  # fmt: skip
    (place / "MLmodel").write_text(yaml.safe_dump(described))


def window(close: float = 45_000.0) -> list[list[float]]:
    """A window that ends with that close."""
    return [[1.0] * N_FEATURES] * (SEQ_LEN - 1) + [[1.0] * CLOSE + [close] + [1.0] * (N_FEATURES - CLOSE - 1)]
