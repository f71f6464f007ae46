"""Calibrating how a bundle reads images, on a folder of labelled ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maru.services.style.bundle import MANIFEST, StyleBundle
from maru.services.style.calibration import Calibration, fit
from maru.services.style.image.decoding import DecodedImage, ImageUnreadable, decode
from maru.services.style.training.errors import BadImages
from maru.services.style.training.evaluation import Array, Figures, figures
from maru.services.style.training.lexicon import NONE
from maru.services.style.training.progress import Progress
from maru.services.style.training.writing import write_bundle

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
FEWEST = 20
FOLDS = 5
FREEDOM = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class TrainedImages:
    """`measured` is of calibrations that had not seen the images they were measured on. `skipped` could not be read."""

    calibration: Calibration
    measured: Figures
    counts: Mapping[str, int]
    skipped: tuple[str, ...]

    @property
    def quality(self) -> str:
        return (
            f"Calibrated on {sum(self.counts.values())} labelled images: of those held out, the style came first for "
            f"{self.measured.styles:.0%}; the calibration error is {self.measured.calibration:.3f}."
        )


def calibrate(bundle: StyleBundle, folder: Path, progress: Progress) -> TrainedImages:
    """`folder` has a folder of images for each style, and may have one called `none`. BadImages."""
    styles = (*bundle.styles, NONE)
    files = _files(folder, styles)
    answers, labels, skipped = [], [], []
    for done, (style, file) in enumerate(files):
        progress("images", done, len(files))
        image = _decoded(file)
        if image is None:
            skipped.append(f"{style}/{file.name}")
            continue
        answers.append(bundle.image_answers([image])[0][0])
        labels.append(styles.index(style))
    progress("images", len(files), len(files))
    names = [styles[label] for label in labels]
    counts = {style: names.count(style) for style in dict.fromkeys(names)}
    if len(labels) < FEWEST or len(counts.keys() - {NONE}) < 2:
        raise BadImages(f"{len(labels)} images of {len(counts)} styles are too few: {FEWEST} of two are the least")
    known = np.stack(answers)
    return TrainedImages(fit(known, labels, freedom=FREEDOM), _measured(known, labels), counts, tuple(skipped))


def write(trained: TrainedImages, source: Path, target: Path, version: str) -> None:
    """The bundle in `source` with that calibration, in `target`, which may be the same. Its confidence is no longer
    capped: it was measured."""
    told: dict[str, Any] = json.loads((source / MANIFEST).read_bytes())
    names = [*told.pop("files")]
    image = {key: value for key, value in told["image"].items() if key != "cap"}
    image |= {
        "calibration": trained.calibration.written(),
        "measured": trained.measured.written(),
        "images": dict(trained.counts),
    }

    def fill(folder: Path) -> Mapping[str, Any]:
        for name in names:
            shutil.copyfile(source / name, folder / name)
        return {**told, "version": version, "quality": f"{told['quality']} {trained.quality}", "image": image}

    write_bundle(target, fill)


def _files(folder: Path, styles: tuple[str, ...]) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise BadImages("there is no such folder of images")
    strange = sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name not in styles)
    if strange:
        raise BadImages(f"there is no style {strange[0]}; there are: {', '.join(styles)}")
    return [
        (style, file)
        for style in styles
        for file in sorted((folder / style).glob("*"))
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]


def _decoded(file: Path) -> DecodedImage | None:
    try:
        return decode(file.read_bytes())
    except (OSError, ImageUnreadable):
        return None


def _measured(answers: Array, labels: list[int]) -> Figures:
    """Each image by a calibration on the other four fifths, taken evenly from each style as they are in order."""
    part = np.arange(len(labels)) % FOLDS
    evidence = np.empty_like(answers, np.float64)
    for fold in range(FOLDS):
        others = [label for label, place in zip(labels, part.tolist(), strict=True) if place != fold]
        evidence[part == fold] = fit(answers[part != fold], others, freedom=FREEDOM)(answers[part == fold])
    return figures(evidence, labels)
