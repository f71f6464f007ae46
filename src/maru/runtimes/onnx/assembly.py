"""A graph under construction together with what goes into it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from maru.runtimes.onnx.graph import Graph
from maru.runtimes.onnx.packed import Inputs
from maru.runtimes.onnx.precision import Linear, Precision
from maru.runtimes.weights import Array, Weights


@dataclass(frozen=True, slots=True)
class Assembly:
    """Takes tensors whose names begin with `prefix` from the weights and puts them into the graph."""

    graph: Graph
    inputs: Inputs
    weights: Weights
    precision: Precision
    prefix: str = ""

    def within(self, prefix: str) -> Assembly:
        """The part of the model whose tensors' names go on with `prefix`."""
        return replace(self, prefix=self.prefix + prefix)

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.graph.op(kind, *inputs, domain=domain, **attributes)

    def tensor(self, name: str, *shape: int | None) -> Array:
        return self.weights(self.prefix + name, *shape)

    def layer(self, name: str, inputs: int, outputs: int, *, bias: bool) -> Linear:
        """The layer of that name. Checkpoints keep its matrix as [out, in]."""
        matrix = self.tensor(f"{name}.weight", outputs, inputs).T
        return Linear(matrix, self.tensor(f"{name}.bias", outputs) if bias else None)

    def project(self, x: str, *layers: Linear) -> list[str]:
        return self.precision.project(self.graph, x, *layers)

    def linear(self, x: str, name: str, inputs: int, outputs: int, *, bias: bool) -> str:
        return self.project(x, self.layer(name, inputs, outputs, bias=bias))[0]

    def pad(self, rows: str) -> str:
        """Packed rows [T, n] side by side: [B, S, n]."""
        return self.op("Gather", rows, self.inputs.side_by_side)

    def unpad(self, padded: str, size: int) -> str:
        """[B, S, …] back to packed rows: [T, size]."""
        return self.op("Gather", self.op("Reshape", padded, self.graph.ints(-1, size)), self.inputs.in_a_row)
