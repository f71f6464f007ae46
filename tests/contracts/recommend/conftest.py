"""Recommendation servers as processes of their own, over bundles that were trained here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import COMPILED, Server, serving

from maru.services.recommend.bundles import Bundles
from maru.services.recommend.core.compiling import keep_compiled_in

EVENTS = 6_000
"""Of the simulated shop: some 200 items, numbered from 1001."""


class RecommendServer(Server):
    """A server, its bundles, and what a client says to it."""

    @property
    def bundles(self) -> Bundles:
        return Bundles(self.home / "recommend")

    def open(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def recommend(self, **body: Any) -> dict[str, Any]:
        answer = httpx.post(self.url + "/recommend", json={"session_id": 1, "events": [], **body}, timeout=60)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def version(self) -> str | None:
        found: str | None = httpx.get(self.url + "/health", timeout=60).json()["model_version"]
        return found

    def reload(self) -> httpx.Response:
        return httpx.post(self.url + "/reload", timeout=60)


def clicks(*aids: int, ts: int = 1_659_304_800) -> list[dict[str, Any]]:
    return [{"aid": aid, "ts": ts + 60 * place, "type": "clicks"} for place, aid in enumerate(aids)]


@pytest.fixture(scope="session")
def compiled() -> Path:
    """Machine code stays between test runs, for these and those of the core."""
    keep_compiled_in(COMPILED)
    return COMPILED


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> Path:
    """Bundles of one shop: v1 of all its events, which is live; v2 of the first half, v3 of the second."""
    from maru.services.recommend.core.index import Index
    from maru.services.recommend.core.rankers import Fused
    from maru.services.recommend.training.simulate import simulate

    events = simulate(EVENTS, seed=5)
    middle = events.session[len(events) // 2]
    bundles = Bundles(tmp_path_factory.mktemp("shop") / "recommend")
    for part in (events, events.select(events.session < middle), events.select(events.session >= middle)):

        def build(folder: Path, part: Any = part) -> Mapping[str, Any]:
            Index.build(part).save(folder)
            for name in ("clicks", "carts", "orders"):
                Fused().save(folder / f"{name}.json")
            return {}

        bundles.add(build)
    bundles.promote("v1").recommender().warm()  # so that no server has to compile anything
    return bundles._folder


@contextmanager
def recommending(home: Path, compiled: Path, shop: Path | None = None, **settings: Any) -> Iterator[RecommendServer]:
    """A server whose state and output are in `home`, with bundles of its own that are copied from `shop`."""
    if shop is not None:
        shutil.copytree(shop, home / "recommend")
    given = {"compiled": str(compiled), **settings}
    with serving(RecommendServer, "tests.contracts.recommend.serve", home, given) as server:
        yield server


@pytest.fixture(scope="session")
def recommend(tmp_path_factory: pytest.TempPathFactory, compiled: Path, shop: Path) -> Iterator[RecommendServer]:
    """A server of v1, for tests that change nothing of it."""
    with recommending(tmp_path_factory.mktemp("recommend"), compiled, shop) as server:
        server.wait()
        yield server
