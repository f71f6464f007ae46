"""The text matcher: what it learns, and whether its figures can be believed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from maru.services.style.bundle import MANIFEST, StyleBundle
from maru.services.style.starter import kept
from maru.services.style.training.command import run_text
from maru.services.style.training.evaluation import figures
from maru.services.style.training.lexicon import Lexicon
from maru.services.style.training.text import TrainedText, train


@pytest.fixture(scope="module")
def trained(lexicon: Lexicon) -> TrainedText:
    return train(lexicon, 0, lambda stage, done, total: None)


def test_known_words_are_found_in_new_sentences_and_new_words_seldom(trained):
    known, new = trained.measured["known words in new sentences"], trained.measured["new words in new sentences"]
    assert known.styles > 0.9 and known.none > 0.9 and known.calibration < 0.25
    assert new.styles < known.styles - 0.2, "what it was not taught it can't know: else something leaks"
    assert new.styles > 0.2 and new.log_loss > known.log_loss


def test_it_repeats_and_the_files_hold_what_was_trained(small, lexicon, trained, tmp_path):
    screen = Console(file=io.StringIO(), width=160)
    assert run_text(small, home=tmp_path, screen=screen, version="v7") == 0
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "known words in new sentences" in said and "100%" in said
    bundle = StyleBundle.open(kept(tmp_path))
    assert (bundle.version, bundle.styles, bundle.stand_in) == ("v7", lexicon.styles, True)
    texts = ["모던한 거실", "빈티지 소파", "한옥", "아무 말", "vintage"]
    found, wanted = bundle.text_answers(texts)[0], trained.matcher.answers(texts)[0]
    assert np.abs(found - wanted).max() < 1e-5
    told = json.loads((kept(tmp_path) / MANIFEST).read_text("utf-8"))
    assert told["text"]["measured"]["new words in new sentences"]["texts"] > 100
    assert "| known words in new sentences |" in (kept(tmp_path) / "report.md").read_text("utf-8")


def test_a_bundle_that_is_there_is_replaced_whole(small, tmp_path, monkeypatch, trained):
    from maru.services.style.training import stand_in

    stand_in.write(trained, small, tmp_path / "bundle", "v1")
    stand_in.write(trained, small, tmp_path / "bundle", "v2")
    assert StyleBundle.open(tmp_path / "bundle").version == "v2"

    def broken(self: TrainedText, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrainedText, "write", broken)
    with pytest.raises(OSError, match="No space"):
        stand_in.write(trained, small, tmp_path / "bundle", "v3")
    assert StyleBundle.open(tmp_path / "bundle").version == "v2"
    assert [place.name for place in tmp_path.iterdir()] == ["bundle"]


def test_a_bad_lexicon_is_one_line(tmp_path):
    screen = Console(file=io.StringIO(), width=160)
    assert run_text(tmp_path, home=tmp_path / "home", screen=screen) == 2
    assert screen.file.getvalue().strip() == "maru: lexicon.yaml can't be read as YAML"  # type: ignore[attr-defined]
    assert not (tmp_path / "home").exists()


def test_a_style_without_a_palette_is_one_line(small, tmp_path, trained):
    from maru.services.style.training import stand_in
    from maru.services.style.training.errors import BadLexicon

    (tmp_path / "palettes.yaml").write_text(
        "modern: {colors: {'#FFFFFF': 1}, brightness: 1, contrast: 0, saturation: 0}"
    )
    with pytest.raises(BadLexicon, match="palettes: vintage"):
        stand_in.write(trained, tmp_path, tmp_path / "bundle", "v1")


def test_figures_of_answers_that_are_known():
    """Two of four with a style found, one lost; one of two without a style taken for one."""
    sure = 20.0
    evidence = np.array([[sure, -sure], [-sure, sure], [-sure, sure], [-sure, -sure], [-sure, -sure], [sure, -sure]])
    found = figures(evidence, [0, 1, 0, 0, 2, 2])
    assert (found.texts, found.styles, found.lost, found.none) == (6, 0.5, 0.25, 0.5)
    assert found.calibration == pytest.approx(0.5) and found.log_loss > 5
    even = figures(np.zeros((300, 2)), [0] * 100 + [1] * 100 + [2] * 100)
    assert even.log_loss == pytest.approx(np.log(3)) and even.calibration < 0.1
