"""`maru train llm`, as a person meets it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from maru.services.llm.training.command import run

from .conftest import greedy


class Terminal:
    """Runs the command and keeps what it said."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said = ""

    def train(self, text: Path, **options: object) -> int:
        screen = Console(file=io.StringIO(), width=100, highlight=False)
        chosen = {"size": "tiny", "vocabulary": 400, "epochs": 0.5, "threads": 1} | options
        status = run(text, home=self.home, screen=screen, **chosen)  # type: ignore[arg-type]
        self.said = screen.file.getvalue().strip()  # type: ignore[attr-defined]
        return status


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home")


def test_a_model_its_report_and_its_log(terminal: Terminal, tale: Path, torch_python: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert terminal.train(tale, python=torch_python, models=models) == 0
    assert [path.name for path in models.iterdir()] == ["tale.gguf"]
    (answer,) = greedy(models / "tale.gguf", ["Every cat"], 4)
    assert answer["usage"]["completion_tokens"] == 4
    (folder,) = (terminal.home / "training").iterdir()
    assert "held-out perplexity" in (folder / "report.md").read_text() and "held-out perplexity" in terminal.said
    log = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    assert [step["step"] for step in log] == list(range(1, len(log) + 1))
    assert log[-1]["held_out"] > 0
    assert str(models / "tale.gguf") in terminal.said


def test_what_can_not_be_trained_is_said_in_one_line(terminal: Terminal, tale: Path, tmp_path: Path) -> None:
    for text, options, said in (
        (tmp_path / "none.txt", {}, "can't be read"),
        (tale, {"kind": "Q9"}, "there is no kind Q9"),
        (tale, {"name": "../out"}, "--name is a file name"),
        (tale, {"python": tmp_path / "none"}, "can't be run"),
    ):
        assert terminal.train(text, **{"python": Path("/bin/true"), **options}) == 2
        assert terminal.said.startswith("maru: ") and said in terminal.said, terminal.said
        assert "Traceback" not in terminal.said
    assert not terminal.home.exists()
