"""Calibrating on labelled images."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from maru.services.style.bundle import MANIFEST, StyleBundle
from maru.services.style.image.decoding import decode
from maru.services.style.starter import starter
from maru.services.style.training.command import run_images


def room(colors: tuple[str, ...], chance: np.random.Generator) -> Image.Image:
    """Bands of colours, as wide as it comes, a little off."""
    heights = chance.integers(10, 40, len(colors))
    bands = [
        np.full((height, 90, 3), [*bytes.fromhex(color[1:])]) for color, height in zip(colors, heights, strict=True)
    ]
    pixels = np.concatenate(bands)
    return Image.fromarray(np.clip(pixels + chance.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8))


ROOMS = {
    "minimal": ("#F5F5F3", "#E0DDD8", "#FFFFFF"),
    "industrial": ("#505052", "#3A3634", "#8E5440"),
    "bohemian": ("#B24A2C", "#2E6F73", "#D98E32", "#7C2C52"),
    "none": ("#00FF40", "#0020FF", "#FF00FF"),
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, chance = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for style, colors in ROOMS.items():
        (folder / style).mkdir()
        for number in range(15):
            room(colors, chance).save(folder / style / f"{number}.jpg", quality=90)
    (folder / "minimal" / "notes.txt").write_text("not an image")
    (folder / "minimal" / "broken.png").write_bytes(b"not an image either")
    return folder


def calibrated(images: Path, output: Path, **options: object) -> tuple[int, str]:
    screen = Console(file=io.StringIO(), width=160)
    status = run_images(images, home=output.parent, screen=screen, output=output, **options)  # type: ignore[arg-type]
    return status, screen.file.getvalue()  # type: ignore[attr-defined]


def test_what_was_measured_lifts_the_cap(labelled, tmp_path):
    status, said = calibrated(labelled, tmp_path / "bundle")
    assert status == 0, said
    assert "held-out images" in said and "minimal/broken.png" in said and "notes.txt" not in said
    before, after = StyleBundle.open(starter()), StyleBundle.open(tmp_path / "bundle")
    assert after.version == f"{before.version}-calibrated" and after.digest != before.digest
    assert "Calibrated on 60 labelled images" in after.quality
    told = json.loads((tmp_path / "bundle" / MANIFEST).read_text())["image"]
    assert told["images"] == dict.fromkeys(ROOMS, 15) and told["measured"]["styles"] > 0.9
    image = decode((labelled / "bohemian" / "3.jpg").read_bytes())
    (one,), (other,) = before.read_images([image]), after.read_images([image])
    assert one.style == other.style == "bohemian" and one.confidence <= 0.2501 and other.confidence > 0.6
    assert before.read_texts(["모던"])[0].matches == after.read_texts(["모던"])[0].matches


def test_in_its_own_place(labelled, tmp_path):
    assert calibrated(labelled, tmp_path / "bundle")[0] == 0
    screen = Console(file=io.StringIO())
    place = tmp_path / "bundle"
    assert run_images(labelled, home=tmp_path, screen=screen, bundle=place, output=place, version="v2") == 0
    assert StyleBundle.open(place).version == "v2"


def test_labels_that_say_nothing_are_believed_nothing(labelled, tmp_path):
    """The same rooms, under labels that chance gave them."""
    chance = np.random.default_rng(1)
    for file in sorted(labelled.glob("*/*.jpg")):
        place = tmp_path / "mixed" / str(chance.choice(["minimal", "industrial", "bohemian"]))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    assert calibrated(tmp_path / "mixed", tmp_path / "bundle")[0] == 0
    bundle = StyleBundle.open(tmp_path / "bundle")
    image = decode((labelled / "bohemian" / "3.jpg").read_bytes())
    assert bundle.read_images([image])[0].confidence < 0.6


def test_folders_that_can_not_be_learnt_from(labelled, tmp_path):
    (tmp_path / "few" / "minimal").mkdir(parents=True)
    assert "too few: 20" in calibrated(tmp_path / "few", tmp_path / "bundle")[1]
    (tmp_path / "strange" / "baroque").mkdir(parents=True)
    status, said = calibrated(tmp_path / "strange", tmp_path / "bundle")
    assert status == 2 and "there is no style baroque; there are: modern" in said
    assert "no such folder" in calibrated(tmp_path / "nowhere", tmp_path / "bundle")[1]
    assert not (tmp_path / "bundle").exists()
