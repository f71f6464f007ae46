"""Forecast servers as processes of their own, over registries that tests change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Server, serving
from tests.contracts.forecast.folder_registry import Shelf
from tests.contracts.forecast.graphs import graph


class ForecastServer(Server):
    """A server, its registry, and what a client says to it."""

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.home / "registry")

    def open(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def forecasting(home: Path, **settings: Any) -> Iterator[ForecastServer]:
    """A server whose state and output are in `home`."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    module = "tests.contracts.forecast.serve"
    with serving(ForecastServer, module, home, settings, TMPDIR=str(temporary)) as server:
        yield server


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A registry for `tmp_path` with two versions: the first, `staging`, adds 1 to the close, the second adds 2."""
    return stocked(tmp_path)


def stocked(home: Path) -> Shelf:
    shelf = Shelf(home / "registry")
    shelf.put("1", graph(1.0))
    shelf.put("2", graph(2.0))
    shelf.point(staging="1", Production="2")
    return shelf


@pytest.fixture(scope="session")
def forecast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForecastServer]:
    """A server of version 1, for tests that change nothing."""
    home = tmp_path_factory.mktemp("forecast")
    stocked(home)
    with forecasting(home, hook_secret="events-are-signed-with-this") as server:
        server.wait()
        yield server
