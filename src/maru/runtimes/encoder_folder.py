"""A sentence encoder in a folder, as sentence-transformers lays it out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.json_file import JsonFile, read_json
from maru.runtimes.onnx.packed import POOLINGS, Pooling

TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "xlm-roberta")
)
ACTIVATIONS = {"torch.nn.modules.linear.Identity": "", "torch.nn.modules.activation.Tanh": "Tanh"}
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer behind the pooling. `activation` is ONNX's name of it, '' for none."""

    weights: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class EncoderFolder:
    """What the files say, before any weight is read.

    There is a Transformer and a Pooling, any number of Dense modules, and a Normalize or none. `max_tokens`
    is None where the files leave it to the architecture. `prompts` are put before a text, by task, and
    `dimensions` are the shorter vectors (Matryoshka) that the files declare.
    """

    path: Path
    config: JsonFile
    weights: Path
    tokenizer: Path
    pooling: Pooling
    pool_prompt: bool
    dense: tuple[Dense, ...]
    max_tokens: int | None
    lowercase: bool
    cut_left: bool
    prompts: Mapping[str, str]
    default_task: str | None
    dimensions: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> EncoderFolder:
        """BadModelFile when files are missing or wrong, UnsupportedModel when they ask for the unknown."""
        path = path.resolve()
        modules = list(_modules(path))
        kinds = [kind for kind, _ in modules]
        if not re.fullmatch("Transformer Pooling( Dense)*( Normalize)?", " ".join(kinds)):
            raise UnsupportedModel("modules.json does not list Transformer, Pooling, Dense, Normalize")
        root = modules[0][1]
        weights, tokenizer = root / WEIGHTS, root / "tokenizer.json"
        dense = tuple(_dense(folder) for kind, folder in modules if kind == "Dense")
        for file in (weights, tokenizer, *(layer.weights for layer in dense)):
            if not file.is_file():
                raise BadModelFile(f"the model has no {file.relative_to(path)}")
        general = JsonFile.read_if_there(path / "config_sentence_transformers.json")
        config = JsonFile.read(root / "config.json")
        special = JsonFile.read_if_there(root / "tokenizer_config.json")
        transformer = _first(root / name for name in TRANSFORMER_CONFIGS)
        pooling = JsonFile.read(modules[1][1] / "config.json")
        prompts = general.texts("prompts")
        default = general.find("default_prompt_name", str)
        if default is not None and default not in prompts:
            raise BadModelFile(f"{general.name}: default_prompt_name names no prompt")
        return cls(
            path=path,
            config=config,
            weights=weights,
            tokenizer=tokenizer,
            pooling=_pooling(pooling),
            pool_prompt=pooling.get("include_prompt", bool, True),
            dense=dense,
            max_tokens=transformer.find("max_seq_length", int) or _possible(special),
            lowercase=transformer.get("do_lower_case", bool, False),
            cut_left=special.get("truncation_side", str, "right") == "left",
            prompts=prompts,
            default_task=default,
            dimensions=_dimensions(general, config),
        )

    def digest(self) -> str:
        """SHA-256 of every file that decides what the model computes."""
        total = hashlib.sha256()
        for file in sorted(self._files()):
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            total.update(f"{file.relative_to(self.path).as_posix()}={content}\n".encode())
        return total.hexdigest()

    def _files(self) -> set[Path]:
        found = {self.weights, self.tokenizer, *(dense.weights for dense in self.dense)}
        return found | {file for pattern in ("*.json", "*/*.json") for file in self.path.glob(pattern)}


def _modules(path: Path) -> Iterator[tuple[str, Path]]:
    listed = read_json(path / "modules.json")
    if not isinstance(listed, list) or not 2 <= len(listed) <= 16:
        raise BadModelFile("modules.json is no list of modules")
    for number, fields in enumerate(listed):
        module = JsonFile(f"modules.json[{number}]", fields if isinstance(fields, dict) else {})
        folder = (path / module.get("path", str)).resolve()
        if not folder.is_relative_to(path):
            raise BadModelFile("modules.json names a folder outside of the model's")
        yield module.get("type", str).rpartition(".")[2], folder


def _first(paths: Iterator[Path]) -> JsonFile:
    found = next((path for path in paths if path.exists()), None)
    return JsonFile.read(found) if found else JsonFile("sentence_bert_config.json", {})


def _possible(tokenizer: JsonFile) -> int | None:
    """The tokenizer's limit, unless it is the huge number that stands for none."""
    limit = tokenizer.find("model_max_length", object)
    return limit if type(limit) is int and 0 < limit < 1_000_000 else None


def _pooling(config: JsonFile) -> Pooling:
    modes: list[object] = []
    match config.find("pooling_mode", object):
        case str(mode):
            modes = [mode]
        case list(several):
            modes = several
        case _:
            modes = [mode for mode, key in POOLINGS.items() if config.get(key, bool, False)]
            modes += ["max"] * config.get("pooling_mode_max_tokens", bool, False)
    if not modes:
        return "mean"
    for mode in POOLINGS:
        if modes == [mode]:
            return mode
    raise UnsupportedModel(f"the pooling is none of: {', '.join(POOLINGS)}")


def _dense(folder: Path) -> Dense:
    config = JsonFile.read(folder / "config.json")
    activation = config.get("activation_function", str, "torch.nn.modules.activation.Tanh")
    if activation not in ACTIVATIONS or config.get("use_residual", bool, False):
        known = " or ".join(ACTIVATIONS)
        raise UnsupportedModel(f"a Dense module is supported without residual, with {known}")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key, str, "sentence_embedding") != "sentence_embedding":
            raise UnsupportedModel("a Dense module is supported behind the pooling only")
    return Dense(
        weights=folder / WEIGHTS,
        inputs=config.size("in_features"),
        outputs=config.size("out_features"),
        bias=config.get("bias", bool, True),
        activation=ACTIVATIONS[activation],
    )


def _dimensions(*files: JsonFile) -> tuple[int, ...]:
    for file in files:
        listed = file.get("matryoshka_dimensions", list, [])
        if not all(type(size) is int and size > 0 for size in listed):
            raise BadModelFile(f"{file.name}: matryoshka_dimensions are not sizes")
        if listed:
            return tuple(sorted(listed))
    return ()
