"""The towers of a SigLIP or SigLIP2 of fixed resolution as ONNX graphs, built from its safetensors without torch.

Pre-LayerNorm blocks with full attention and learned positions. The text's vector is that of the last place of its
window, padding or not; the image's is what a learned probe attends to. Both leave with length 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.json_file import JsonFile
from maru.runtimes.onnx.graph import MICROSOFT, Graph
from maru.runtimes.onnx.precision import Linear, Precision, PrecisionName, precision
from maru.runtimes.safetensors_file import SafetensorsFile
from maru.runtimes.weights import Array, Weights
from maru.services.style.siglip import IMAGE_DATA, IMAGE_GRAPH, TEXT_DATA, TEXT_GRAPH

ACTIVATION = "gelu_pytorch_tanh"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one tower; what config.json leaves out is as in the published base model."""

    hidden: int
    inner: int
    layers: int
    heads: int
    epsilon: float

    @classmethod
    def read(cls, config: JsonFile) -> Sizes:
        """UnsupportedModel, BadModelFile."""
        if config.get("hidden_act", str, ACTIVATION) != ACTIVATION:
            raise UnsupportedModel(f"a SigLIP is supported with {ACTIVATION} only")
        hidden, heads = config.get("hidden_size", int, 768), config.get("num_attention_heads", int, 12)
        if hidden < 1 or heads < 1 or hidden % heads:
            raise BadModelFile(f"{config.name}: the sizes in it do not go together")
        return cls(
            hidden=hidden,
            inner=config.get("intermediate_size", int, 3072),
            layers=config.get("num_hidden_layers", int, 12),
            heads=heads,
            epsilon=config.get("layer_norm_eps", float, 1e-6),
        )


@dataclass(frozen=True, slots=True)
class Exported:
    """What the manifest must know of the graphs: how logits are made of cosines, and the inputs' sizes."""

    scale: float
    bias: float
    window: int
    size: int
    dimension: int


def export(folder: Path, target: Path, name: PrecisionName = "fp32") -> Exported:
    """Write both towers of the checkpoint in `folder` (config.json, model.safetensors) into `target`.

    BadModelFile and UnsupportedModel say why it can't be.
    """
    config = JsonFile.read(folder / "config.json")
    if (kind := config.get("model_type", str)) != "siglip":
        raise UnsupportedModel(f"model_type {kind[:64]!r} is not siglip, a SigLIP or SigLIP2 of fixed resolution")
    if not (folder / "model.safetensors").is_file():
        raise BadModelFile("the model has no model.safetensors")
    text, vision = config.child("text_config"), config.child("vision_config")
    with SafetensorsFile(folder / "model.safetensors") as file:
        weights = Weights(file)
        with (target / TEXT_DATA).open("wb") as data:
            graph = Graph(data, TEXT_DATA)
            window = text.get("max_position_embeddings", int, 64)
            dimension = _text(Tower(graph, weights, precision(name), Sizes.read(text), "text_model."), text, window)
        (target / TEXT_GRAPH).write_bytes(graph.model().SerializeToString())
        with (target / IMAGE_DATA).open("wb") as data:
            graph = Graph(data, IMAGE_DATA)
            size = vision.get("image_size", int, 224)
            seen = _image(Tower(graph, weights, precision(name), Sizes.read(vision), "vision_model."), vision, size)
        (target / IMAGE_GRAPH).write_bytes(graph.model().SerializeToString())
        if seen != dimension:
            raise BadModelFile("the towers' vectors are not of the same size")
        scale, bias = float(np.exp(weights("logit_scale", 1)[0])), float(weights("logit_bias", 1)[0])
    return Exported(scale, bias, window, size, dimension)


@dataclass(frozen=True, slots=True)
class Tower:
    """One tower under construction: takes tensors whose names begin with `prefix`."""

    graph: Graph
    weights: Weights
    precision: Precision
    sizes: Sizes
    prefix: str

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        return self.graph.op(kind, *inputs, domain=domain, **attributes)

    def tensor(self, name: str, *shape: int | None) -> Array:
        return self.weights(self.prefix + name, *shape)

    def layer(self, name: str, inputs: int, outputs: int) -> Linear:
        """Checkpoints keep matrices as [out, in]."""
        return Linear(self.tensor(f"{name}.weight", outputs, inputs).T, self.tensor(f"{name}.bias", outputs))

    def norm(self, x: str, name: str) -> str:
        shape = self.sizes.hidden
        scale, shift = self.tensor(f"{name}.weight", shape), self.tensor(f"{name}.bias", shape)
        constants = (self.graph.constant(scale), self.graph.constant(shift))
        return self.op("LayerNormalization", x, *constants, axis=-1, epsilon=self.sizes.epsilon)

    def encode(self, x: str) -> str:
        """Every block, on [B, S, hidden]."""
        for number in range(self.sizes.layers):
            block = f"encoder.layers.{number}."
            x = self.op("Add", x, self._attention(self.norm(x, f"{block}layer_norm1"), f"{block}self_attn."))
            x = self.op("Add", x, self.grown(self.norm(x, f"{block}layer_norm2"), f"{block}mlp."))
        return x

    def grown(self, x: str, name: str) -> str:
        hidden, inner = self.sizes.hidden, self.sizes.inner
        (wide,) = self.precision.project(self.graph, x, self.layer(f"{name}fc1", hidden, inner))
        wide = self.op("Gelu", wide, approximate="tanh")
        return self.precision.project(self.graph, wide, self.layer(f"{name}fc2", inner, hidden))[0]

    def mixed(self, query: str, key: str, value: str, out: Linear) -> str:
        heads = self.op("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=self.sizes.heads)
        return self.precision.project(self.graph, heads, out)[0]

    def _attention(self, x: str, name: str) -> str:
        hidden = self.sizes.hidden
        layers = (self.layer(f"{name}{part}_proj", hidden, hidden) for part in ("q", "k", "v"))
        query, key, value = self.precision.project(self.graph, x, *layers)
        return self.mixed(query, key, value, self.layer(f"{name}out_proj", hidden, hidden))

    def finish(self, vector: str, size: int) -> None:
        """The output, of length 1."""
        length = self.op("ReduceL2", vector, self.graph.ints(-1), keepdims=1)
        self.graph.output("embedding", self.op("Div", vector, length), "B", size)


def _text(tower: Tower, config: JsonFile, window: int) -> int:
    graph, hidden = tower.graph, tower.sizes.hidden
    ids = graph.input("ids", TensorProto.INT64, "B", "S")
    vocabulary = config.get("vocab_size", int, 32_000)
    words = tower.precision.table(graph, tower.tensor("embeddings.token_embedding.weight", vocabulary, hidden), ids)
    places = tower.tensor("embeddings.position_embedding.weight", window, hidden)
    states = tower.norm(tower.encode(tower.op("Add", words, graph.constant(places))), "final_layer_norm")
    size = config.get("projection_size", int, hidden)
    last = tower.op("Gather", states, graph.constant(-1, np.int64), axis=1)
    tower.finish(tower.precision.project(graph, last, tower.layer("head", hidden, size))[0], size)
    return size


def _image(tower: Tower, config: JsonFile, size: int) -> int:
    graph, hidden = tower.graph, tower.sizes.hidden
    patch = config.get("patch_size", int, 16)
    if patch < 1 or size < patch or not config.get("vision_use_head", bool, True):
        raise UnsupportedModel("a SigLIP is supported with its attention pooling, and patches smaller than the image")
    pixels = graph.input("pixels", TensorProto.FLOAT, "B", "channels", "height", "width")
    kernel = graph.constant(tower.tensor("embeddings.patch_embedding.weight", hidden, 3, patch, patch))
    shift = graph.constant(tower.tensor("embeddings.patch_embedding.bias", hidden))
    patches = tower.op("Conv", pixels, kernel, shift, strides=[patch, patch])
    rows = tower.op("Transpose", tower.op("Reshape", patches, graph.ints(0, hidden, -1)), perm=[0, 2, 1])
    places = tower.tensor("embeddings.position_embedding.weight", (size // patch) ** 2, hidden)
    states = tower.norm(tower.encode(tower.op("Add", rows, graph.constant(places))), "post_layernorm")
    tower.finish(_pooled(tower, states), hidden)
    return hidden


def _pooled(tower: Tower, states: str) -> str:
    """What the probe attends to, [B, hidden]. The probe is the same for every image, so its query is a constant."""
    graph, hidden = tower.graph, tower.sizes.hidden
    matrix = tower.tensor("head.attention.in_proj_weight", 3 * hidden, hidden)
    shift = tower.tensor("head.attention.in_proj_bias", 3 * hidden)
    query = matrix[:hidden].T
    key, value = (Linear(matrix[at : at + hidden].T, shift[at : at + hidden]) for at in (hidden, 2 * hidden))
    probe = tower.tensor("head.probe", 1, 1, hidden) @ query + shift[:hidden]
    keys, values = tower.precision.project(graph, states, key, value)
    count = tower.op("Shape", states, start=0, end=1)
    asked = tower.op("Expand", graph.constant(probe), tower.op("Concat", count, graph.ints(1, hidden), axis=0))
    found = tower.mixed(asked, keys, values, tower.layer("head.attention.out_proj", hidden, hidden))
    found = tower.op("Add", found, tower.grown(tower.norm(found, "head.layernorm"), "head.mlp."))
    return tower.op("Reshape", found, graph.ints(-1, hidden))
