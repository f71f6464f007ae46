"""The whole graph of a sentence encoder: tokens in, one vector a text out, pooled but not normalised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maru.runtimes.encoder_folder import Dense, EncoderFolder
from maru.runtimes.onnx.architecture import read_architecture
from maru.runtimes.onnx.assembly import Assembly
from maru.runtimes.onnx.graph import Graph
from maru.runtimes.onnx.packed import Inputs
from maru.runtimes.onnx.precision import Float32, PrecisionName, precision
from maru.runtimes.safetensors_file import SafetensorsFile
from maru.runtimes.weights import Weights

BUILDER = 1
"""Changed whenever equal files would give another graph."""

GRAPH, DATA = "model.onnx", "model.bin"


def build(folder: EncoderFolder, name: PrecisionName, max_tokens: int, target: Path) -> None:
    """Write the graph and its weights into `target`, an empty folder, for texts of up to `max_tokens`."""
    architecture = replace(read_architecture(folder.config), positions=max_tokens)
    with (target / DATA).open("wb") as data, SafetensorsFile(folder.weights) as file:
        graph = Graph(data, DATA)
        inputs = Inputs.declare(graph)
        weights = Weights(file, architecture.anchor)
        assembly = Assembly(graph, inputs, weights, precision(name, architecture.bfloat))
        states = architecture.build(assembly)
        vector, size = graph.op("MatMul", inputs.pool, states), architecture.hidden
        for dense in folder.dense:
            vector, size = _dense(graph, inputs, vector, dense), dense.outputs
        graph.output("embedding", vector, "B", size)
    model = graph.model(dimension=size, resident_bytes=graph.resident_bytes)
    (target / GRAPH).write_bytes(model.SerializeToString())


def _dense(graph: Graph, inputs: Inputs, x: str, dense: Dense) -> str:
    """A layer behind the pooling. It has one row a text, so it is cheap, and is kept in fp32."""
    with SafetensorsFile(dense.weights) as file:
        assembly = Assembly(graph, inputs, Weights(file), Float32())
        x = assembly.linear(x, "linear", dense.inputs, dense.outputs, bias=dense.bias)
    return graph.op(dense.activation, x) if dense.activation else x
