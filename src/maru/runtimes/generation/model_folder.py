"""A language model in a folder of safetensors, as transformers lays it out: what its files say about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.generation.gguf_file import MAX_TEMPLATE_BYTES
from maru.runtimes.json_file import JsonFile
from maru.runtimes.safetensors_file import DTYPES, SafetensorsFile, TensorPlace

MAX_FILES = 256


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """`token_bytes` are kept of every token of a context, `weight_bytes` is what the tensors take."""

    path: Path
    architecture: str
    parameters: int
    dtype: str
    context_length: int
    chat_template: str | None
    weight_bytes: int
    token_bytes: int
    size: int

    @classmethod
    def read(cls, path: Path) -> ModelFolder:
        """Vets every header. BadModelFile when files are missing, damaged or hostile, UnsupportedModel for a model
        that would need code from its folder, or that does not generate."""
        if not all(each.is_file() or each.is_dir() for each in path.iterdir()):
            raise BadModelFile("the model's folder holds something that is no file")  # reading a pipe would never end
        config = JsonFile.read(path / "config.json")
        special = JsonFile.read_if_there(path / "tokenizer_config.json")
        if config.find("auto_map", object) or special.find("auto_map", object):
            raise UnsupportedModel("the model needs code from its folder, which is never run")
        names = config.get("architectures", list, [])
        architecture = next((name for name in names if isinstance(name, str)), "")
        if not architecture.endswith(("ForCausalLM", "LMHeadModel")):
            raise UnsupportedModel("config.json names no architecture that generates text (…ForCausalLM)")
        if not (path / "tokenizer.json").is_file():
            raise BadModelFile("the model has no tokenizer.json")
        tensors = list(_tensors(path))
        dtypes: Counter[str] = Counter()
        for place in tensors:
            dtypes[place.dtype] += place.stop - place.start
        ((dtype, _),) = dtypes.most_common(1) or [("F32", 0)]
        return cls(
            path=path,
            architecture=architecture,
            parameters=sum(math.prod(place.shape) for place in tensors),
            dtype=dtype,
            context_length=_context(config),
            chat_template=_template(path, special),
            weight_bytes=dtypes.total(),
            token_bytes=_token_bytes(config, DTYPES[dtype].itemsize),
            size=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        )

    def facts(self) -> dict[str, Any]:
        """What may be shown to callers."""
        return {
            "name": self.path.name,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "quantization": self.dtype,
            "context_length": self.context_length,
            "chat_template": self.chat_template,
            "size_bytes": self.size,
            "format": "safetensors",
        }


def _tensors(path: Path) -> Iterator[TensorPlace]:
    """Those of all files, each of which is vetted."""
    files = sorted(path.glob("*.safetensors"))
    if not 1 <= len(files) <= MAX_FILES:
        raise BadModelFile("the model has no weights, or too many files of them")
    for file in files:
        if not file.resolve().is_relative_to(path.resolve()):
            raise BadModelFile(f"{file.name} is a link that leads out of the model's folder")
        with SafetensorsFile(file) as opened:
            yield from opened.tensors.values()


def _context(config: JsonFile) -> int:
    for key in ("max_position_embeddings", "n_positions", "n_ctx"):
        if config.find(key, object) is not None:
            return config.size(key)
    raise UnsupportedModel("config.json does not say how long a context may be")


def _first(config: JsonFile, *keys: str) -> int:
    return next((config.size(key) for key in keys if config.find(key, object) is not None), 0)


def _token_bytes(config: JsonFile, itemsize: int) -> int:
    """All layers' keys and values of one token."""
    layers, heads = _first(config, "num_hidden_layers", "n_layer"), _first(config, "num_attention_heads", "n_head")
    width = _first(config, "head_dim") or _first(config, "hidden_size", "n_embd") // max(1, heads)
    return 2 * layers * (_first(config, "num_key_value_heads") or heads) * width * itemsize


def _template(path: Path, special: JsonFile) -> str | None:
    beside = path / "chat_template.jinja"
    try:
        content = beside.read_bytes()[: MAX_TEMPLATE_BYTES + 1] if beside.is_file() else b""
    except OSError:
        raise BadModelFile("chat_template.jinja can't be read") from None
    found = special.find("chat_template", object)
    template = content.decode(errors="replace") if content else found if isinstance(found, str) else None
    if template is not None and len(template) > MAX_TEMPLATE_BYTES:
        raise BadModelFile("the chat template is too long")
    return template
