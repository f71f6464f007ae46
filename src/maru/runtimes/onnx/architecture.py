"""The architectures that a graph can be built of."""

from __future__ import annotations

from maru.runtimes.errors import UnsupportedModel
from maru.runtimes.json_file import JsonFile
from maru.runtimes.onnx.bert import Bert
from maru.runtimes.onnx.gemma import Gemma

Architecture = Bert | Gemma
"""An encoder as its config.json describes it.

Each has `vocabulary` and `hidden` sizes, and `positions`, the most tokens that a text may have; `anchor`, the
name of a tensor that its checkpoints have, whatever stands before their names; `bfloat`, whether 16 bits must
be bfloat16; `matryoshka`, the shorter vectors that its published checkpoints of a dimension were trained for;
and `build`.
"""

ARCHITECTURES: dict[str, type[Bert] | type[Gemma]] = {
    "bert": Bert,
    "roberta": Bert,
    "xlm-roberta": Bert,
    "camembert": Bert,
    "gemma3_text": Gemma,
}


def read_architecture(config: JsonFile) -> Architecture:
    """UnsupportedModel when model_type is none that is known."""
    kind = config.get("model_type", str)
    if kind not in ARCHITECTURES:
        raise UnsupportedModel(f"model_type {kind[:64]!r} is none of: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind].read(config)
