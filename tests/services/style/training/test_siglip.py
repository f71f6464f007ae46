"""A SigLIP2 exported without torch computes what transformers computes with it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from maru.services.style.bundle import MANIFEST, StyleBundle
from maru.services.style.image.decoding import DecodedImage
from maru.services.style.training.command import run_pull

SCRIPT = Path(__file__).parents[3] / "reference" / "make_tiny_siglip.py"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has it, made now by transformers itself."""
    python = os.environ.get("MARU_REFERENCE_PYTHON")
    if not python:
        pytest.fail("MARU_REFERENCE_PYTHON must name an interpreter that has torch and transformers: see tests/run")
    target = tmp_path_factory.mktemp("siglip") / "tiny"
    target.mkdir()
    made = subprocess.run([python, str(SCRIPT), str(target)], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr[-3000:]
    return target


def pulled(checkpoint: Path, small: Path, output: Path, **options: object) -> tuple[int, str]:
    screen = Console(file=io.StringIO(), width=200)
    status = run_pull(source=small, screen=screen, home=output.parent, output=output, model=str(checkpoint), **options)  # type: ignore[arg-type]
    return status, screen.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def bundle_folder(checkpoint: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    status, said = pulled(checkpoint, small, folder)
    assert status == 0, said
    return folder


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> dict[str, np.ndarray]:
    return dict(np.load(checkpoint / "reference.npz"))


def pictures(reference: dict[str, np.ndarray]) -> list[DecodedImage]:
    found = [reference[f"pixels{number}"] for number in range(3)]
    return [DecodedImage(pixels, pixels, pixels.shape[1], pixels.shape[0], "PNG") for pixels in found]


def embedded(bundle: StyleBundle, checkpoint: Path, reference: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    texts = bundle.read_texts(json.loads((checkpoint / "texts.json").read_text()))
    images = bundle.read_images(pictures(reference))
    return np.stack([found.embedding for found in texts]), np.stack([found.embedding for found in images])


def test_vectors_are_those_of_transformers(bundle_folder, checkpoint, reference):
    texts, images = embedded(StyleBundle.open(bundle_folder), checkpoint, reference)
    assert np.abs(texts - reference["texts"]).max() < 1e-5
    assert np.abs(images - reference["images"]).max() < 1e-5
    told = json.loads((bundle_folder / MANIFEST).read_text())["labels"]
    logits = images @ texts.T * told["scale"] + told["bias"]
    assert np.abs(logits - reference["logits"]).max() < 1e-4


@pytest.mark.parametrize(("precision", "off"), [("fp16", 2e-3), ("int8", 5e-2)])
def test_other_precisions_are_near(checkpoint, small, reference, tmp_path, precision, off):
    status, said = pulled(checkpoint, small, tmp_path / "bundle", precision=precision)
    assert status == 0, said
    texts, images = embedded(StyleBundle.open(tmp_path / "bundle"), checkpoint, reference)
    assert 0 < np.abs(texts - reference["texts"]).max() < off and 0 < np.abs(images - reference["images"]).max() < off


def test_one_definition_and_one_loader(bundle_folder, reference):
    bundle = StyleBundle.open(bundle_folder)
    assert not bundle.stand_in and bundle.text_dimension == bundle.image_dimension == 48
    assert bundle.styles == ("modern", "vintage", "hanok") and bundle.version == "tiny-fp32"
    for found in (*bundle.read_texts(["모던", "의자"]), *bundle.read_images(pictures(reference))):
        assert 0 < found.confidence <= found.score < 1 and len(found.matches) == 3
        assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-5)


def test_a_batch_is_read_as_one_by_one(bundle_folder):
    bundle, texts = StyleBundle.open(bundle_folder), ["모던한 거실", "a", "x " * 400, ""]
    for text, found in zip(texts, bundle.read_texts(texts), strict=True):
        (alone,) = bundle.read_texts([text])
        assert np.abs(alone.embedding - found.embedding).max() < 1e-5


def test_a_text_that_is_not_unicode(bundle_folder):
    with pytest.raises(ValueError, match="not valid Unicode"):
        StyleBundle.open(bundle_folder).read_texts(["\ud800"])


def test_every_file_is_held_against_its_checksum(bundle_folder, tmp_path):
    for name in ("text.onnx", "text.bin", "image.onnx", "image.bin", "tokenizer.json", "labels.safetensors"):
        copied = Path(shutil.copytree(bundle_folder, tmp_path / name))
        content = bytearray((copied / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copied / name).write_bytes(content)
        with pytest.raises(Exception, match=f"{name} does not match its checksum"):
            StyleBundle.open(copied)


@pytest.mark.parametrize(
    ("file", "find", "put", "said"),
    [
        ("config.json", '"siglip"', '"siglip2"', "is not siglip"),
        ("config.json", '"gelu_pytorch_tanh"', '"quick_gelu"', "gelu_pytorch_tanh only"),
        ("config.json", '"hidden_size": 48', '"hidden_size": 64', "is not what config.json says"),
        ("config.json", '"num_hidden_layers": 3', '"num_hidden_layers": 4', "has no text_model.encoder.layers.3"),
        ("preprocessor_config.json", '"resample": 2', '"resample": 5', "resampling"),
        ("tokenizer.json", "{", "", "is no tokenizer"),
    ],
)
def test_a_checkpoint_that_can_not_be_exported_is_one_line(checkpoint, small, tmp_path, file, find, put, said):
    copied = Path(shutil.copytree(checkpoint, tmp_path / "spoilt"))
    text = (copied / file).read_text()
    assert find in text
    (copied / file).write_text(text.replace(find, put))
    status, told = pulled(copied, small, tmp_path / "bundle")
    assert status == 2 and said in told and told.startswith("maru: ") and "Traceback" not in told
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_checkpoint_that_is_not_whole(checkpoint, small, tmp_path, missing):
    copied = Path(shutil.copytree(checkpoint, tmp_path / "spoilt"))
    (copied / missing).unlink()
    status, told = pulled(copied, small, tmp_path / "bundle")
    assert status == 2 and missing in told
