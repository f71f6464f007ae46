"""`maru train recommend`, as a person meets it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from maru.services.recommend.bundles import Bundles
from maru.services.recommend.training.command import bundles_folder, run

SMALL = {"simulate": 12_000, "teaching": 600, "measuring": 200}


class Terminal:
    """Runs the command and keeps what it said."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said = ""

    def train(self, events: Path | None = None, **options: object) -> int:
        screen = Console(file=io.StringIO(), width=100, highlight=False)
        status = run(events, home=self.home, screen=screen, **options)  # type: ignore[arg-type]
        self.said = screen.file.getvalue()  # type: ignore[attr-defined]
        return status

    @property
    def bundles(self) -> Bundles:
        return Bundles(bundles_folder(self.home))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    terminal = Terminal(tmp_path_factory.mktemp("home"))
    assert terminal.train(**SMALL) == 0
    return terminal


def test_the_first_bundle_goes_live_and_its_figures_are_told(trained):
    assert trained.bundles.current() == "v1" and "v1 is live" in trained.said
    for word in ("served", "fused", "V-SKNN", "co-visitation", "popularity", "clicks R@20", "MRR@20", "weighted"):
        assert word in trained.said
    manifest = json.loads((bundles_folder(trained.home) / "v1" / "manifest.json").read_text())
    assert f"{manifest['metrics']['served']['weighted']['value']:.3f} ±" in trained.said
    assert "the shop is simulated" in trained.said and "Served beside V-SKNN" in trained.said
    assert "simulating" in trained.said and "100%" in trained.said


def test_the_next_waits_to_be_promoted(trained):
    assert trained.train(**SMALL, seed=2) == 0
    assert trained.bundles.current() == "v1"
    assert "v1 stays live; to serve v2: maru models promote recommend v2" in trained.said
    assert trained.train(**SMALL, seed=3, promote=True) == 0
    assert trained.bundles.current() == "v3" and "v3 is live" in trained.said


def test_a_bad_file_is_one_line(tmp_path):
    terminal = Terminal(tmp_path / "home")
    (tmp_path / "bad.csv").write_text("session,aid,ts\n1,2,3\n1,x,3\n")
    assert terminal.train(tmp_path / "bad.csv") == 2
    assert terminal.said.strip().splitlines()[-1].startswith("maru: bad.csv, row 3: aid is not a whole number")
    assert not bundles_folder(terminal.home).exists() and "Traceback" not in terminal.said


def test_nothing_to_train_on_is_one_line(tmp_path):
    terminal = Terminal(tmp_path / "home")
    assert terminal.train() == 2
    assert "one of the two" in terminal.said


def test_a_place_that_can_not_be_written(tmp_path):
    terminal = Terminal(tmp_path / "home")
    (tmp_path / "file").write_text("")
    assert terminal.train(**SMALL, output=tmp_path / "file") == 2
    assert "maru: the bundle can't be written" in terminal.said
