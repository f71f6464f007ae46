"""`maru train forecast`, as a person meets it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from maru.runtimes.registry.open import open_registry
from maru.runtimes.registry.types import RegisteredVersion, VersionNotFound
from maru.services.forecast.training.bundle import Bundle
from maru.services.forecast.training.command import run

NAME = "BTC_LSTM_Production"


class Terminal:
    """Runs the command and keeps what it said."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said = ""

    def train(self, csv: Path, **options: object) -> int:
        screen = Console(file=io.StringIO(), width=80, highlight=False)
        status = run(csv, home=self.home, screen=screen, epochs=6, **options)  # type: ignore[arg-type]
        self.said = screen.file.getvalue()  # type: ignore[attr-defined]
        return status

    def alias(self, alias: str) -> RegisteredVersion:
        async def ask() -> RegisteredVersion:
            registry = open_registry(None, self.home)
            try:
                return await registry.resolve(NAME, alias)
            finally:
                await registry.aclose()

        return asyncio.run(ask())

    def newest(self) -> RegisteredVersion:
        async def ask() -> RegisteredVersion:
            registry = open_registry(None, self.home)
            try:
                return (await registry.versions(NAME))[0]
            finally:
                await registry.aclose()

        return asyncio.run(ask())


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, echo: Path) -> Terminal:
    """One home for all tests that register, as to make its database takes seconds; `staging` is a good model."""
    terminal = Terminal(tmp_path_factory.mktemp("registry"))
    assert terminal.train(echo, register=NAME, alias="staging") == 0
    return terminal


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory, market: Callable, written: Callable) -> Path:
    return written(tmp_path_factory.mktemp("echo") / "echo.csv", market(2000, echo=0.6))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory, market: Callable, written: Callable) -> Path:
    """What was so for four fifths of the time is the other way round since: the worst that can be learnt."""
    rows = market(2000, echo=0.6, turn=0.82)
    return written(tmp_path_factory.mktemp("turned") / "turned.csv", rows)  # type: ignore[no-any-return]


def test_files_and_figures(terminal, echo):
    assert terminal.train(echo) == 0
    (folder,) = (terminal.home / "training").iterdir()
    bundle = Bundle.read(folder)
    assert folder.name == bundle.sha256[:12] and str(folder) in terminal.said.replace("\n", "")
    for name in ("fold 1", "fold 3", "holdout", "MASE", "RMSE skill", "MAE", "directions right", "95% interval"):
        assert name in terminal.said
    assert f"{bundle.metrics['holdout_mase']:.4f}" in terminal.said
    assert f"{bundle.metrics['holdout_dm_statistic']:+.2f}" in terminal.said
    assert "better than the last close." in terminal.said and "100%" in terminal.said
    assert max(map(len, terminal.said.splitlines()[:-2])) <= 80


def test_output_says_where(terminal, echo, tmp_path):
    assert terminal.train(echo, output=tmp_path / "here") == 0
    assert Bundle.read(tmp_path / "here").metadata["interval"] == "1h"
    assert not terminal.home.exists()
    assert "| MASE |" in (tmp_path / "here" / "report.md").read_text()


def test_a_bad_file_is_one_line(terminal, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("time,open\n1,2\n")
    assert terminal.train(bad) == 2
    assert terminal.said.strip().splitlines()[-1] == (
        "maru: the column high is missing; needed are a time and open, high, low, close, volume"
    )
    assert not terminal.home.exists()


def test_an_alias_needs_a_name(terminal, tmp_path):
    assert terminal.train(tmp_path / "not read", alias="staging") == 2
    assert "--alias needs --register" in terminal.said


def test_a_bundle_that_can_not_be_written(terminal, echo, tmp_path):
    (tmp_path / "file").write_text("")
    assert terminal.train(echo, output=tmp_path / "file") == 2
    assert "maru: the bundle can't be written: File exists" in terminal.said


def test_registered_and_aliased(registered, echo):
    assert registered.train(echo, register=NAME, alias="fresh") == 0
    version = registered.newest()
    assert registered.alias("fresh").version == version.version
    assert f"registered as version {version.version} of {NAME}, now fresh" in registered.said
    bundle = Bundle.read(next((registered.home / "training").iterdir()))
    assert version.metrics["holdout_mase"] == pytest.approx(bundle.metrics["holdout_mase"])


def test_registered_without_an_alias(registered, echo):
    before = registered.alias("staging").version
    assert registered.train(echo, register=NAME) == 0
    assert registered.alias("staging").version == before != registered.newest().version


def test_a_worse_model_does_not_get_the_alias(registered, turned):
    """It is registered all the same, so that it can be looked at."""
    before = registered.alias("staging").version
    assert registered.train(turned, register=NAME, alias="staging") == 1
    refused = registered.newest().version
    assert registered.alias("staging").version == before != refused
    assert "the alias staging was not moved: the holdout MASE is 1." in registered.said
    assert "--force moves it all the same" in registered.said and f"registered as version {refused}" in registered.said
    assert "worse than the last close" in registered.said


def test_a_worse_model_does_not_get_a_new_alias_either(registered, turned):
    assert registered.train(turned, register=NAME, alias="never") == 1
    with pytest.raises(VersionNotFound):
        registered.alias("never")


def test_force_is_a_persons_own_word(registered, turned):
    assert registered.train(turned, register=NAME, alias="forced", force=True) == 0
    assert registered.alias("forced").version == registered.newest().version


def test_a_registry_that_is_down(terminal, echo):
    assert terminal.train(echo, register=NAME, alias="staging", tracking_uri="http://127.0.0.1:9") == 2
    assert "Traceback" not in terminal.said and terminal.said.strip().splitlines()[-1].startswith("maru: ")
    assert len(list((terminal.home / "training").iterdir())) == 1, "the training is not lost"
