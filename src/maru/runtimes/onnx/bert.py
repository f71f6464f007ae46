"""The encoders of the BERT family: BERT, RoBERTa, XLM-R and the models made of them (MiniLM, BGE, E5, GTE …).

Post-LayerNorm blocks, learned absolute positions, full attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.json_file import JsonFile
from maru.runtimes.onnx.assembly import Assembly
from maru.runtimes.onnx.graph import MICROSOFT

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True, slots=True)
class Bert:
    """What a checkpoint's config.json says. RoBERTa's positions begin after the row of its padding token."""

    anchor: ClassVar[str] = "embeddings.word_embeddings.weight"
    bfloat: ClassVar[bool] = False
    matryoshka: ClassVar[dict[int, tuple[int, ...]]] = {}

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    epsilon: float
    activation: str
    first_position: int
    positions: int

    @classmethod
    def read(cls, config: JsonFile) -> Bert:
        if config.get("position_embedding_type", str, "absolute") != "absolute":
            raise UnsupportedModel("of the BERT family only models with absolute positions are supported")
        activation = config.get("hidden_act", str, "gelu")
        if activation not in ACTIVATIONS:
            raise UnsupportedModel(f"hidden_act is none of {', '.join(ACTIVATIONS)}")
        hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
        roberta = config.get("model_type", str) != "bert"
        first = config.get("pad_token_id", int, 1) + 1 if roberta else 0
        positions = config.size("max_position_embeddings") - first
        if hidden % heads or first < 0 or positions < 1:
            raise BadModelFile(f"{config.name}: the sizes in it do not go together")
        return cls(
            vocabulary=config.size("vocab_size"),
            hidden=hidden,
            inner=config.size("intermediate_size"),
            layers=config.size("num_hidden_layers"),
            heads=heads,
            epsilon=config.get("layer_norm_eps", float, 1e-12),
            activation=activation,
            first_position=first,
            positions=positions,
        )

    def build(self, assembly: Assembly) -> str:
        """Add the encoder to the graph; the hidden states of the last layer, [T, hidden]."""
        x = self._embed(assembly)
        for number in range(self.layers):
            x = self._block(assembly.within(f"encoder.layer.{number}."), x)
        return x

    def _embed(self, a: Assembly) -> str:
        words = a.precision.table(a.graph, a.tensor(self.anchor, self.vocabulary, self.hidden), a.inputs.ids)
        places = a.tensor("embeddings.position_embeddings.weight", None, self.hidden)
        kinds = a.tensor("embeddings.token_type_embeddings.weight", None, self.hidden)
        last = self.first_position + self.positions
        if len(places) < last or not len(kinds):
            raise BadModelFile("the table of positions, or of token types, is shorter than config.json says")
        table = a.graph.constant(places[self.first_position : last] + kinds[0])
        added = a.op("Add", words, a.op("Gather", table, a.inputs.positions))
        return self._norm(a, added, "embeddings.LayerNorm")

    def _block(self, a: Assembly, x: str) -> str:
        mixed = self._attention(a, x)
        mixed = a.linear(mixed, "attention.output.dense", self.hidden, self.hidden, bias=True)
        x = self._norm(a, a.op("Add", mixed, x), "attention.output.LayerNorm")
        grown = a.linear(self._grown(a, x), "output.dense", self.inner, self.hidden, bias=True)
        return self._norm(a, a.op("Add", grown, x), "output.LayerNorm")

    def _attention(self, a: Assembly, x: str) -> str:
        names = (f"attention.self.{part}" for part in ("query", "key", "value"))
        projected = a.project(x, *(a.layer(name, self.hidden, self.hidden, bias=True) for name in names))
        inputs = (*map(a.pad, projected), "", a.inputs.lengths)
        mixed = a.op("MultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=self.heads)
        return a.unpad(mixed, self.hidden)

    def _grown(self, a: Assembly, x: str) -> str:
        layer = a.layer("intermediate.dense", self.hidden, self.inner, bias=True)
        if self.activation == "gelu" and layer.bias is not None:  # the exact one, in one pass with the bias
            (product,) = a.project(x, layer._replace(bias=None))
            return a.op("BiasGelu", product, a.graph.constant(layer.bias), domain=MICROSOFT)
        (y,) = a.project(x, layer)
        return a.op("Relu", y) if self.activation == "relu" else a.op("Gelu", y, approximate="tanh")

    def _norm(self, a: Assembly, x: str, name: str) -> str:
        scale, shift = a.tensor(f"{name}.weight", self.hidden), a.tensor(f"{name}.bias", self.hidden)
        scaled = (a.graph.constant(scale), a.graph.constant(shift))
        return a.op("LayerNormalization", x, *scaled, axis=-1, epsilon=self.epsilon)
