"""In what precision the matrices of a graph are stored and multiplied.

fp32    as they are.
fp16    the embedding table is kept in 16 bits in memory and in the file; the other matrices are stored in 16
        bits and widened once, at load. Everything is computed in fp32, because onnxruntime's CPU kernels
        have no 16-bit matrix product on x86 and on most ARM cores: what is saved is disk and, where the
        table is most of the model, about half of the memory. Nothing can overflow. The 16 bits are
        bfloat16 where the model asks for it, or has weights that float16 can't hold.
int8    a matrix has one scale an output channel, a token's activations have one scale of their own, and the
        products are summed exactly in int32. A token's scale depends on that token alone, so a text's vector
        does not depend on what else is in the batch. An embedding table has one scale a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from onnx import TensorProto

from maru.runtimes.onnx.graph import MICROSOFT, Graph
from maru.runtimes.weights import Array

PrecisionName = Literal["int8", "fp16", "fp32"]

TINY = np.float32(1e-8)
BLOCK = 8192


class Linear(NamedTuple):
    """y = x @ weight + bias; `weight` is [in, out]."""

    weight: Array
    bias: Array | None = None


class Precision(ABC):
    """Puts tables and matrix products into a graph."""

    @abstractmethod
    def table(self, graph: Graph, rows: Array, ids: str) -> str:
        """The rows of an embedding table that `ids` names, as float32."""

    @abstractmethod
    def project(self, graph: Graph, x: str, *layers: Linear) -> list[str]:
        """Each layer's product with the same x, as float32."""


class Float32(Precision):
    def table(self, graph: Graph, rows: Array, ids: str) -> str:
        return graph.op("Gather", graph.constant(rows), ids)

    def project(self, graph: Graph, x: str, *layers: Linear) -> list[str]:
        return [_product(graph, x, graph.constant(weight), bias) for weight, bias in layers]


class Half(Precision):
    """16 bits at rest, 32 in motion."""

    def __init__(self, bfloat: bool) -> None:
        self._bfloat = bfloat

    def table(self, graph: Graph, rows: Array, ids: str) -> str:
        return self._widened(graph, graph.op("Gather", graph.constant(self._narrow(rows)), ids))

    def project(self, graph: Graph, x: str, *layers: Linear) -> list[str]:
        products = []
        for weight, bias in layers:
            graph.resident_bytes += weight.nbytes // 2  # widened when the session folds constants
            matrix = self._widened(graph, graph.constant(self._narrow(weight)))
            products.append(_product(graph, x, matrix, bias))
        return products

    def _narrow(self, weight: Array) -> np.ndarray[Any, Any]:
        if self._bfloat or max(weight.max(), -weight.min()) > np.finfo(np.float16).max:
            return weight.astype(ml_dtypes.bfloat16)
        return weight.astype(np.float16)

    @staticmethod
    def _widened(graph: Graph, value: str) -> str:
        return graph.op("Cast", value, to=TensorProto.FLOAT)


class Int8(Precision):
    def table(self, graph: Graph, rows: Array, ids: str) -> str:
        scale = _peaks(rows, 1) / 127
        matrix = np.empty(rows.shape, np.int8)
        for start in range(0, len(rows), BLOCK):  # a table may be most of the model: no second copy of it
            block = slice(start, start + BLOCK)
            matrix[block] = _rounded(rows[block] / scale[block])
        picked = graph.op("Gather", graph.constant(matrix), ids)
        scales = graph.op("Gather", graph.constant(scale), ids)
        return graph.op("Mul", graph.op("Cast", picked, to=TensorProto.FLOAT), scales)

    def project(self, graph: Graph, x: str, *layers: Linear) -> list[str]:
        one, zero = graph.constant(1, np.float32), graph.constant(128, np.uint8)
        peak = graph.op("ReduceMax", graph.op("Abs", x), graph.ints(-1), keepdims=1)
        peak = graph.op("Max", peak, graph.constant(TINY))
        factor = graph.op("Div", graph.constant(127, np.float32), peak)
        quantized = graph.op("QuantizeLinear", graph.op("Mul", x, factor), one, zero)
        products = []
        for weight, bias in layers:
            scale = _peaks(weight, 0) / 127
            matrix, scales = graph.constant(_rounded(weight / scale)), graph.constant(scale[0] / 127)
            y = graph.op("MatMulIntegerToFloat", quantized, matrix, one, scales, zero, domain=MICROSOFT)
            products.append(_biased(graph, graph.op("Mul", y, peak), bias))
        return products


def precision(name: PrecisionName, bfloat: bool = False) -> Precision:
    """By its setting's name; `bfloat` chooses bfloat16 where it is fp16."""
    return {"int8": Int8, "fp32": Float32}[name]() if name != "fp16" else Half(bfloat)


def _product(graph: Graph, x: str, matrix: str, bias: Array | None) -> str:
    return _biased(graph, graph.op("MatMul", x, matrix), bias)


def _biased(graph: Graph, x: str, bias: Array | None) -> str:
    return x if bias is None else graph.op("Add", x, graph.constant(bias))


def _peaks(values: Array, axis: int) -> Array:
    """The largest magnitude along an axis, which is kept."""
    peaks: Array = np.maximum(values.max(axis, keepdims=True), -values.min(axis, keepdims=True))
    return np.maximum(peaks, TINY, out=peaks)


def _rounded(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rounded: np.ndarray[Any, Any] = np.rint(values)
    return rounded.clip(-127, 127).astype(np.int8)
