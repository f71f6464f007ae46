"""The model that comes with Maru."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
from tests.services.llm.training.conftest import completions, greedy

from maru.runtimes.generation.gguf_file import GgufFile
from maru.services.llm.starter import NAME, plant, starter
from maru.services.llm.training.text import Text

FOLDER = Path(__file__).parents[3] / "starters" / "llm"
OPENINGS = ["It is a truth universally acknowledged, that", "Emma was not sorry to be", '"My dear', "The weather was"]


@pytest.fixture
def gguf() -> Path:
    found = starter()
    assert found == FOLDER / NAME
    return found


def test_the_first_start_has_it(gguf: Path, tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / ".partial").mkdir()  # what a pull that was broken off leaves
    plant(models)
    (models / ".partial").rmdir()
    assert [path.name for path in models.iterdir()] == [NAME]
    assert (models / NAME).read_bytes() == gguf.read_bytes()


def test_the_folder_is_made_and_nobody_else_reads_it(tmp_path: Path) -> None:
    plant(tmp_path / "home" / "models")
    assert (tmp_path / "home" / "models").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_has_filled_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"mine")
    plant(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.gguf"]


def test_what_is_changed_is_not_changed_back(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / NAME).write_bytes(b"better")
    plant(tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"better"


def test_it_streams_words_that_are_in_the_books(gguf: Path) -> None:
    known = set(re.findall(r"[a-z]+", " ".join(Text.read(FOLDER / "austen").train).lower()))
    bodies = [
        {"prompt": prompt, "max_tokens": 60, "temperature": 0.7, "top_p": 0.9, "seed": seed}
        for seed, prompt in enumerate(OPENINGS)
    ]
    words = []
    for answer in completions(gguf, bodies):
        words += re.findall(r"[a-z]+", answer["choices"][0]["text"].lower())[1:-1]  # the last may be cut off
    assert len(words) > 120
    assert sum(word in known for word in words) / len(words) > 0.95
    assert len(set(words)) > 60, "it says the same again and again"


def test_a_conversation_is_a_text_that_goes_on(gguf: Path) -> None:
    (answer,) = completions(gguf, [{"messages": [{"role": "user", "content": OPENINGS[0]}], "max_tokens": 8}])
    (same,) = greedy(gguf, [OPENINGS[0]], 1)
    assert answer["usage"]["prompt_tokens"] == same["usage"]["prompt_tokens"]


def test_the_file_is_what_its_papers_say(gguf: Path) -> None:
    provenance = (FOLDER / "PROVENANCE.md").read_text()
    assert hashlib.sha256(gguf.read_bytes()).hexdigest() in provenance
    assert f"{gguf.stat().st_size:,} bytes" in provenance
    text = Text.read(FOLDER / "austen")
    assert text.sha256 in (FOLDER / "report.md").read_text()
    facts = GgufFile.read(gguf).facts()
    assert facts["architecture"] == "llama"
    log = [json.loads(line) for line in (FOLDER / "training.jsonl").read_text().splitlines()]
    assert f"{math.exp(log[-1]['held_out']):.1f}" in (FOLDER / "report.md").read_text()
    assert gguf.stat().st_size < 5 * 2**20
