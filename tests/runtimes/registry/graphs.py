"""Small ONNX graphs whose answers are known: the last close, which is feature 3, and something added."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLOSE = 3


def graph(
    add: float = 0.0,
    *,
    seq_len: int = 12,
    n_features: int = 18,
    batch: int | str = "N",
    flat: bool = False,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """Answers [N, 1], or [N] when `flat`."""
    close = [helper.make_node("Slice", ["x", "from", "to", "axes"], ["last"])]
    shaped = [helper.make_node("Reshape", ["last", "shape"], ["close"])]
    added = [helper.make_node("Add", ["close", "more"], ["y"])]
    stored = [
        helper.make_tensor("from", TensorProto.INT64, [2], [seq_len - 1, CLOSE]),
        helper.make_tensor("to", TensorProto.INT64, [2], [seq_len, CLOSE + 1]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("shape", TensorProto.INT64, [1 if flat else 2], [-1] if flat else [-1, 1]),
        helper.make_tensor("more", kind, [1], [add]),
    ]
    return built([*close, *shaped, *added], stored, [batch, seq_len, n_features], [batch] if flat else [batch, 1], kind)


def built(
    nodes: list[onnx.NodeProto],
    stored: list[onnx.TensorProto],
    takes: list[int | str],
    gives: list[int | str],
    kind: int = TensorProto.FLOAT,
) -> bytes:
    x = helper.make_tensor_value_info("x", kind, takes)
    y = helper.make_tensor_value_info("y", kind, gives)
    body = helper.make_graph(nodes, "forecast", [x], [y], stored)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def mean_of_all(scale: float = 1.0) -> bytes:
    """The mean of a window, times `scale`: NaN or infinity as the scale makes it."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["y"]),
    ]
    return built(nodes, [helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale])], ["N", 12, 18], ["N"])


def one_for_all() -> bytes:
    """One number, however many windows there are."""
    return built([helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)], [], ["N", 12, 18], [])


def centred_on_the_batch() -> bytes:
    """The mean of each window less that of all: its answer depends on its neighbours. Alone it is 0."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["each"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["all"], keepdims=0),
        helper.make_node("Sub", ["each", "all"], ["y"]),
    ]
    return built(nodes, [], ["N", 12, 18], ["N"])


def slow(width: int = 1500, times: int = 3) -> bytes:
    """The mean of a window, by way of products that take milliseconds."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["m"]),
        helper.make_node("MatMul", ["m", "ones"], ["h0"]),
        *(helper.make_node("MatMul", [f"h{step}", "same"], [f"h{step + 1}"]) for step in range(times)),
        helper.make_node("ReduceMean", [f"h{times}"], ["y"], axes=[1], keepdims=0),
    ]
    stored = [
        numpy_helper.from_array(np.array([-1, 1]), "column"),
        numpy_helper.from_array(np.ones((1, width), np.float32), "ones"),
        numpy_helper.from_array(np.eye(width, dtype=np.float32), "same"),
    ]
    return built(nodes, stored, ["N", 12, 18], ["N"])
