"""The bundle of what can be made without any model's weights: a text matcher, and palettes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maru.runtimes.errors import BadModelFile
from maru.services.style.calibration import Calibration
from maru.services.style.palettes import PALETTES, checked
from maru.services.style.training import report
from maru.services.style.training.errors import BadLexicon
from maru.services.style.training.text import TrainedText, described
from maru.services.style.training.writing import write_bundle
from maru.services.style.training.yaml_file import read_yaml

WRITTEN = "palettes.yaml"
REPORT = "report.md"
CAP = 0.25
"""Three times chance among twelve styles. Nothing was measured that would let it be believed more, and nobody who asks
for even odds is to be given a guess by colours."""
QUALITY = (
    "A stand-in. Texts are matched by words that the project listed, not understood; an image's style is guessed from "
    f"its colours and light, with a confidence of at most {CAP}. Colours, brightness, contrast and saturation are "
    "measured."
)


def write(trained: TrainedText, source: Path, target: Path, version: str) -> None:
    """The bundle in `target`, with a report for people; `source` has `palettes.yaml`. BadLexicon when a style has no
    palette there."""
    palettes = read_yaml(source / WRITTEN)
    try:
        checked(palettes, trained.styles)
    except BadModelFile as error:
        raise BadLexicon(f"{WRITTEN}: {error}") from None

    def fill(folder: Path) -> Mapping[str, Any]:
        trained.write(folder)
        (folder / PALETTES).write_text(json.dumps(palettes, indent=1) + "\n", "utf-8")
        (folder / REPORT).write_text(report.markdown(trained.measured), "utf-8")
        plain = Calibration.none(len(trained.styles)).written()
        return {
            "name": "style-starter",
            "version": version,
            "licence": "Apache-2.0",
            "quality": QUALITY,
            "stand_in": True,
            "styles": list(trained.styles),
            "text": {"kind": "ngrams", "calibration": plain, "measured": described(trained)},
            "image": {"kind": "palettes", "calibration": plain, "cap": CAP},
        }

    write_bundle(target, fill)
