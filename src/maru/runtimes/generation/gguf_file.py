"""A language model in a GGUF file: what its header says about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import LlamaFileType

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.generation.gguf_header import GgufHeader, List

MAX_TEMPLATE_BYTES = 1 << 16

NOT_GENERATIVE = ("bert", "t5encoder", "clip", "wavtokenizer", "gemma-embedding")
"""Architectures, or parts of their names, whose models don't generate."""

CACHE_BYTES = 2
"""Of each number that is kept of a token (F16)."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """`token_bytes` are kept of every token of a context, `weight_bytes` is what the tensors take."""

    path: Path
    architecture: str
    name: str
    parameters: int
    quantization: str
    context_length: int
    chat_template: str | None
    weight_bytes: int
    token_bytes: int
    size: int

    @classmethod
    def read(cls, path: Path) -> GgufFile:
        """BadModelFile for a file that is damaged or hostile, UnsupportedModel for one that is no language model."""
        header = GgufHeader.read(path)
        facts = _Facts(path.name, header)
        facts.check()
        return cls(
            path=path,
            architecture=facts.architecture,
            name=facts.text("general.name") or path.stem,
            parameters=sum(math.prod(tensor.shape) for tensor in header.tensors.values()),
            quantization=facts.quantization(),
            context_length=facts.size("context_length"),
            chat_template=facts.text("tokenizer.chat_template"),
            weight_bytes=sum(tensor.size for tensor in header.tensors.values()),
            token_bytes=facts.token_bytes(),
            size=path.stat().st_size,
        )

    def facts(self) -> dict[str, Any]:
        """What may be shown to callers."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "quantization": self.quantization,
            "context_length": self.context_length,
            "chat_template": self.chat_template,
            "size_bytes": self.size,
            "format": "gguf",
        }


class _Facts:
    """The fields that say what a model is, with their types checked."""

    def __init__(self, name: str, header: GgufHeader) -> None:
        self._name = name
        self._header = header
        self.architecture = self.text("general.architecture") or ""

    def check(self) -> None:
        kind = self.text("general.type") or "model"
        if not self.architecture or kind != "model" or not self._header.tensors:
            raise UnsupportedModel(f"{self._name} is no model, but {kind if kind != 'model' else 'a part of one'}")
        if any(part in self.architecture for part in NOT_GENERATIVE):
            raise UnsupportedModel(f"{self._name} is a {self.architecture} model, which does not generate text")
        if self._header.fields.get("split.count", 1) not in (0, 1):
            raise UnsupportedModel(f"{self._name} is one of several parts: merge them with `llama-gguf-split --merge`")
        tokens = self._header.fields.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, List) or not tokens.length:
            raise UnsupportedModel(f"{self._name} has no vocabulary")
        for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
            of_each = self._header.fields.get(key)
            if of_each is not None and (not isinstance(of_each, List) or of_each.length != tokens.length):
                raise self._bad("its vocabulary's lists are not of one length")
        if len(self.text("tokenizer.chat_template") or "") > MAX_TEMPLATE_BYTES:
            raise self._bad("its chat template is too long")

    def text(self, key: str) -> str | None:
        value = self._header.fields.get(key)
        if value is not None and not isinstance(value, str):
            raise self._bad(f"{key} is no text")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        value = self._header.fields.get(f"{self.architecture}.{key}", default)
        if type(value) is not int or not 0 < value < 2**31:
            raise self._bad(f"{key} is no possible size")
        return value

    def quantization(self) -> str:
        try:
            return LlamaFileType(self._header.fields.get("general.file_type", -1)).name.split("_", 1)[1]
        except (ValueError, IndexError):
            return "unknown"

    def token_bytes(self) -> int:
        """All layers' keys and values of one token, an upper bound for layers that see a part of the context."""
        heads, layers = self._each_layer("attention.head_count"), self.size("block_count")
        key_heads = self._each_layer("attention.head_count_kv", heads)
        each = self.size("embedding_length") // max(1, *heads) if any(heads) else 1
        width = self.size("attention.key_length", each or 1) + self.size("attention.value_length", each or 1)
        counted = key_heads if len(key_heads) > 1 else key_heads * layers
        return sum(counted) * width * CACHE_BYTES

    def _each_layer(self, key: str, default: tuple[int, ...] = (0,)) -> tuple[int, ...]:
        match self._header.fields.get(f"{self.architecture}.{key}"):
            case None:
                found = default
            case List(values=tuple(values)):
                found = values or (0,)
            case value:
                found = (value,)
        if not all(type(count) is int and 0 <= count < 2**16 for count in found):
            raise self._bad(f"{key} is no possible count")
        return found

    def _bad(self, what: str) -> BadModelFile:
        return BadModelFile(f"{self._name} can't be used: {what}")
