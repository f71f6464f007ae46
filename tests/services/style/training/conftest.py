"""A lexicon that is quick to learn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from maru.services.style.starter import materials
from maru.services.style.training.lexicon import Lexicon

STYLES = ("modern", "vintage", "hanok")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything of the project's own, of three styles."""
    folder = tmp_path_factory.mktemp("lexicon")
    for name in ("lexicon.yaml", "palettes.yaml", "prompts.yaml"):
        whole = yaml.safe_load((materials() / name).read_text("utf-8"))
        kept = {style: part for style, part in whole.items() if style in (*STYLES, "none")}
        if name == "lexicon.yaml":
            kept["none"] = {"furniture": whole["none"]["furniture"], "anything": whole["none"]["anything"]}
        (folder / name).write_text(yaml.safe_dump(kept, allow_unicode=True, sort_keys=False), "utf-8")
    shutil.copyfile(materials() / "templates.yaml", folder / "templates.yaml")
    return folder


@pytest.fixture(scope="session")
def lexicon(small: Path) -> Lexicon:
    return Lexicon.read(small)
