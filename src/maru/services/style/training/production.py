"""The production bundle: the towers of a SigLIP2, and a label for each style."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from maru.runtimes.json_file import JsonFile
from maru.runtimes.onnx.precision import PrecisionName
from maru.runtimes.onnx.session import Session
from maru.services.style.calibration import Calibration, fit
from maru.services.style.siglip import LABELS, TEXT_GRAPH, TOKENIZER, embed_texts, windowed
from maru.services.style.training.errors import TrainingError
from maru.services.style.training.lexicon import Lexicon, sentences
from maru.services.style.training.siglip_graph import Exported, export
from maru.services.style.training.text import labels_of
from maru.services.style.training.writing import write_bundle
from maru.services.style.training.yaml_file import read_yaml, texts

PROMPTS = "prompts.yaml"
RESAMPLINGS = {2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers, as preprocessor_config.json has them."""
BATCH = 16
QUALITY = (
    "A SigLIP2, which sees and reads. Its confidence on texts is calibrated on the project's sentences; on images it "
    "is the model's own until `maru train style` calibrates it on labelled ones."
)


def write(checkpoint: Path, source: Path, target: Path, version: str, precision: PrecisionName) -> None:
    """The bundle in `target`, of the checkpoint as the hub has it; `source` has the prompts and the lexicon.

    BadModelFile and UnsupportedModel (engine) for the checkpoint, BadLexicon for `source`.
    """
    lexicon = Lexicon.read(source)
    prompts = _prompts(source / PROMPTS, lexicon.styles)
    if not (checkpoint / TOKENIZER).is_file():
        raise TrainingError(f"the model has no {TOKENIZER}")

    def fill(folder: Path) -> Mapping[str, Any]:
        exported = export(checkpoint, folder, precision)
        shutil.copyfile(checkpoint / TOKENIZER, folder / TOKENIZER)
        text = {"kind": "siglip", "precision": precision, **_tokens(checkpoint, folder, exported.window)}
        tower = _Texts(folder, text)
        labels = _labels(tower, prompts)
        save_file({"labels": labels}, folder / LABELS)
        plain = Calibration.none(len(prompts)).written()
        text["calibration"] = _calibrated(tower, labels, exported, lexicon).written()
        return {
            "name": checkpoint.name,
            "version": version,
            "quality": QUALITY,
            "stand_in": False,
            "styles": list(prompts),
            "text": text,
            "image": {"kind": "siglip", "precision": precision, **_look(checkpoint, exported), "calibration": plain},
            "labels": {"scale": exported.scale, "bias": exported.bias, "prompts": prompts},
        }

    write_bundle(target, fill)


class _Texts:
    """The text tower while there are no labels yet."""

    def __init__(self, folder: Path, written: dict[str, Any]) -> None:
        self._session = Session(folder / TEXT_GRAPH, int8=written["precision"] == "int8")
        self._tokenizer = windowed(folder / TOKENIZER, JsonFile("text", written))

    def __call__(self, asked: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        parts = [asked[at : at + BATCH] for at in range(0, len(asked), BATCH)]
        return np.concatenate([embed_texts(self._session, self._tokenizer, part) for part in parts])


def _labels(tower: _Texts, prompts: Mapping[str, Sequence[str]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    means = np.stack([tower(asked).mean(axis=0) for asked in prompts.values()])
    return np.ascontiguousarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def _calibrated(tower: _Texts, labels: Any, exported: Exported, lexicon: Lexicon) -> Calibration:
    """On a sentence with every descriptor, which the model was never taught. Texts are nearer to the labels, which
    are texts, than images are, so that the model's own logits say little."""
    asked = sentences(lexicon.descriptors, lexicon.templates, 1, 0)
    answers = tower(asked.texts) @ labels.T * exported.scale + exported.bias
    return fit(answers, labels_of(asked, lexicon.styles), freedom=1.0)


def _tokens(checkpoint: Path, folder: Path, window: int) -> dict[str, Any]:
    config = JsonFile.read_if_there(checkpoint / "tokenizer_config.json")
    written = {"window": window, "padding_side": config.get("padding_side", str, "right"), "pad_id": 0}
    tokenizer = windowed(folder / TOKENIZER, JsonFile("text", written))
    pad = tokenizer.token_to_id(str(config.get("pad_token", str, "<pad>")))
    return {**written, "pad_id": 0 if pad is None else pad}


def _look(checkpoint: Path, exported: Exported) -> dict[str, Any]:
    """How images are made ready, as preprocessor_config.json says."""
    config = JsonFile.read_if_there(checkpoint / "preprocessor_config.json")
    resample = RESAMPLINGS.get(config.get("resample", int, 2))
    if resample is None or abs(config.get("rescale_factor", float, 1 / 255) * 255 - 1) > 1e-6:
        raise TrainingError("preprocessor_config.json asks for what is not known: resampling or rescaling")
    half = [0.5, 0.5, 0.5]
    means, spreads = config.get("image_mean", list, half), config.get("image_std", list, half)
    return {"size": exported.size, "resample": resample, "mean": means, "std": spreads}


def _prompts(path: Path, styles: Sequence[str]) -> dict[str, list[str]]:
    written = read_yaml(path)
    return {style: texts(written.get(style), f"{path.name}: {style}") for style in styles}
