"""A trained forecaster as one ONNX graph: raw windows in, prices out, all scaling inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from maru.runtimes.onnx.session import session_options
from maru.services.forecast.training.lstm import Weights
from maru.services.forecast.training.scaling import TINY, WIDEST, Scaling
from maru.services.forecast.training.windows import Singles

OPSET = 18
IR = 9
INPUT, OUTPUT = "x", "y"
AT_ONCE = 1024


def build(scaling: Scaling, weights: Weights, shrinkage: float, seq_len: int, **metadata: str) -> bytes:
    """float32 x [batch, seq_len, features], raw, to float32 y [batch, 1], the next close in units of money.

    Whatever the network answers, y is within `scaling.bound` of the window's last close, and with a shrinkage of
    0 it is that close to the last bit. Equal arguments give equal bytes. `metadata` is stored in the graph.
    """
    chosen = scaling.features
    width = len(chosen.names)
    draft = _Draft()
    last = draft.op("Gather", draft.op("Gather", INPUT, draft.ints(-1), axis=1), draft.ints(chosen.close_index), axis=2)
    floor = draft.op("Max", last, draft.floats(TINY))
    prices = draft.op("Max", _columns(draft, chosen.prices), draft.floats(TINY))
    relative = draft.op("Log", draft.op("Div", prices, floor))
    volumes = draft.op("Max", _columns(draft, chosen.volumes), draft.floats(0))
    traded = draft.op("Log", draft.op("Add", volumes, draft.floats(1)))
    unusual = draft.op("Sub", traded, draft.op("ReduceMean", traded, draft.ints(1), keepdims=1))
    rest = tuple(place for place in range(width) if place not in (*chosen.prices, *chosen.volumes))
    order = (*chosen.prices, *chosen.volumes, *rest)
    gathered = draft.op("Concat", relative, unusual, _columns(draft, rest), axis=2)
    centred = draft.op("Sub", gathered, draft.floats(scaling.mean[list(order)]))
    scaled = draft.op("Div", centred, draft.floats(scaling.spread[list(order)]))
    seen = draft.op("Clip", scaled, draft.floats(-WIDEST), draft.floats(WIDEST))
    state = _lstm(draft, seen, weights, order)
    answer = draft.op("Gemm", state, draft.floats(weights.head[:, None]), draft.floats(weights.offset))
    move = draft.op("Mul", answer, draft.floats(shrinkage * scaling.target_spread))
    bounded = draft.op("Clip", move, draft.floats(-scaling.bound), draft.floats(scaling.bound))
    close = draft.op("Reshape", last, draft.ints(-1, 1))
    draft.op("Mul", close, draft.op("Exp", bounded), name=OUTPUT)
    return draft.model(seq_len, width, metadata)


def answers(model: bytes, windows: Singles) -> Singles:
    """What the graph itself answers to windows, float32 [n]."""
    session = ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    parts = [windows[start : start + AT_ONCE] for start in range(0, len(windows), AT_ONCE)]
    found = [session.run([OUTPUT], {INPUT: np.ascontiguousarray(part)})[0][:, 0] for part in parts]
    return np.concatenate(found)


def _columns(draft: _Draft, places: tuple[int, ...]) -> str:
    return draft.op("Gather", INPUT, draft.ints(*places), axis=2)


def _lstm(draft: _Draft, seen: str, weights: Weights, order: tuple[int, ...]) -> str:
    """The last state, [batch, hidden]."""
    hidden = weights.hidden
    bias = np.concatenate([_gates(weights.bias), np.zeros(4 * hidden)])
    steps = draft.op("Transpose", seen, perm=[1, 0, 2])
    inputs = draft.floats(_gates(weights.inputs[list(order)]).T[None])
    recurrent = draft.floats(_gates(weights.recurrent).T[None])
    state = draft.op("LSTM", steps, inputs, recurrent, draft.floats(bias[None]), output=1, hidden_size=hidden)
    return draft.op("Squeeze", state, draft.ints(0))


def _gates(values: Any) -> Any:
    """From input, forget, cell, output to ONNX's input, output, forget, cell."""
    enter, keep, fresh, emit = np.split(values, 4, axis=-1)
    return np.concatenate((enter, emit, keep, fresh), axis=-1)


class _Draft:
    """A graph under construction, its constants within."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def floats(self, values: Any) -> str:
        return self._constant(np.asarray(values, np.float32))

    def ints(self, *values: int) -> str:
        return self._constant(np.asarray(values, np.int64))

    def op(self, kind: str, *inputs: str, output: int = 0, name: str = "", **attributes: Any) -> str:
        """Add a node, and give the name of that output of it."""
        value = name or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [""] * output + [value], **attributes))
        return value

    def model(self, seq_len: int, width: int, metadata: dict[str, str]) -> bytes:
        given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", seq_len, width])
        made = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 1])
        graph = helper.make_graph(self._nodes, "forecast", [given], [made], self._constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="maru"
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _constant(self, values: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name
