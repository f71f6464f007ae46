"""Which version is served when the registry, those who reload and those who leave get in each other's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.contracts.forecast.graphs import folder, graph, window

from maru.engine.engine import Engine
from maru.engine.events import ModelChanged
from maru.engine.types import Request, Result
from maru.runtimes.registry.types import RegisteredVersion, RegistryUnavailable, VersionNotFound
from maru.services.forecast.configuration import Configuration
from maru.services.forecast.pickled import Host
from maru.services.forecast.service import Forecasts, ReloadFailed

NAME = "BTC_LSTM_Production"
Gate = Callable[[], Awaitable[None]]


class Books:
    """A registry in memory, whose doors a test can hold shut."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.aliases = {"staging": "1", "Production": "2"}
        self.resolved: list[str] = []
        self.fetched: list[str] = []
        self.fetching = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.fault: Exception | None = None
        for version in ("1", "2"):
            folder(place / version, graph(float(version)))

    async def resolve(self, name: str, alias: str) -> RegisteredVersion:
        self.resolved.append(alias)
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        if alias not in self.aliases:
            raise VersionNotFound("no such alias")
        version = self.aliases[alias]
        return RegisteredVersion(name, version, f"models:/m-{version}")

    async def fetch(self, version: RegisteredVersion, folder: Path) -> Path:
        self.fetched.append(version.version)
        self.fetching.set()
        await self.go.wait()
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(self._place / version.version)
        return folder

    async def aclose(self) -> None:
        pass


class World:
    def __init__(self, place: Path, **configuration: object) -> None:
        self.books = Books(place)
        self.engine = Engine()
        self.loads: list[str] = []
        self.engine.events.subscribe(self._note)
        settings = Configuration(**{"ready_every_s": 0.02, **configuration})  # type: ignore[arg-type]
        self.forecasts = Forecasts(self.engine, self.books, settings)  # type: ignore[arg-type]

    def _note(self, event: object) -> None:
        if isinstance(event, ModelChanged) and event.change == "loading":
            self.loads.append(event.ref.version)

    async def ask(self) -> tuple[float, str, str]:
        given = np.array(window(10.0), np.float32)
        result: Result = await self.engine.infer(Request(NAME, [given], self.engine.clock() + 10))
        label = self.forecasts.label(result.ref)
        return result.outputs[0], label["model_alias"], label["model_version"]


@asynccontextmanager
async def world(place: Path, **configuration: object) -> AsyncIterator[World]:
    made = World(place, **configuration)
    try:
        async with made.forecasts.following():
            yield made
    finally:
        await made.engine.close()


async def come(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_who_reloads_after_the_alias_moved_gets_what_it_moved_to(tmp_path: Path) -> None:
    """The reload before it has asked the registry too early to know, and must not answer for it."""

    async def main() -> None:
        async with world(tmp_path) as w:
            w.books.go.clear()
            early = asyncio.create_task(w.forecasts.reload())
            await w.books.fetching.wait()
            w.books.aliases["staging"] = "2"
            late = [asyncio.create_task(w.forecasts.reload()) for _ in range(5)]
            await asyncio.sleep(0.01)
            w.books.go.set()
            assert (await early).version == "1"
            assert {served.version for served in await asyncio.gather(*late)} == {"2"}
            assert await w.ask() == (12.0, "staging", "2")
            assert w.books.resolved == ["staging"] * 2 and w.loads == ["1", "2"]

    asyncio.run(main())


def test_the_last_who_asks_wins_whatever_takes_longest(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            for _ in range(10):
                aliases = ["staging", "Production", "staging", "Production"]
                changes = [asyncio.create_task(w.forecasts.reload(alias)) for alias in aliases]
                served = await asyncio.gather(*changes)
                assert [each.alias for each in served] == aliases
                assert await w.ask() == (12.0, "Production", "2")

    asyncio.run(main())


def test_two_aliases_of_one_version_share_its_model(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            await w.forecasts.reload()
            w.books.aliases["Production"] = "1"
            await w.forecasts.reload("Production")
            assert await w.ask() == (11.0, "Production", "1")
            assert w.loads == ["1"] and w.forecasts.health().model_alias == "Production"

    asyncio.run(main())


def test_who_leaves_does_not_stop_the_reload_of_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            w.books.go.clear()
            leaving, staying = (asyncio.create_task(w.forecasts.reload()) for _ in range(2))
            await w.books.fetching.wait()
            leaving.cancel()
            w.books.go.set()
            assert (await staying).version == "1"
            with pytest.raises(asyncio.CancelledError):
                await leaving

    asyncio.run(main())


def test_the_start_does_not_undo_a_reload(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            w.books.aliases.pop("staging")
            starting = asyncio.create_task(w.forecasts.start())
            await come(lambda: len(w.books.resolved) > 1)
            await w.forecasts.reload("Production")
            w.books.aliases["staging"] = "1"
            await starting
            assert await w.ask() == (12.0, "Production", "2")

    asyncio.run(main())


def test_the_start_tries_for_its_time_and_no_longer(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, ready_for_s=0.2) as w:
            w.books.fault = RegistryUnavailable("away")
            await asyncio.wait_for(w.forecasts.start(), 5)
            assert 3 <= len(w.books.resolved) <= 12
            assert w.forecasts.health().reload_error == "away"

    asyncio.run(main())


@pytest.mark.parametrize("fault", [RegistryUnavailable("away"), RuntimeError("at /secret/path"), OSError(5, "/secret")])
def test_following_outlives_whatever_the_registry_does(tmp_path: Path, fault: Exception) -> None:
    async def main() -> None:
        async with world(tmp_path, poll_s=0.01) as w:
            await w.forecasts.reload()
            w.books.fault = fault
            await come(lambda: w.forecasts.health().reload_error is not None)
            assert "/" not in str(w.forecasts.health().reload_error)
            with pytest.raises(ReloadFailed) as told:
                await w.forecasts.reload()
            assert "/" not in str(told.value)
            w.books.aliases["staging"], w.books.fault = "2", None
            await come(lambda: w.forecasts.health().model_version == "2")
            assert await w.ask() == (12.0, "staging", "2")
            assert w.forecasts.health().reload_error is None

    asyncio.run(main())


def test_an_alias_that_does_not_move_costs_one_question(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, poll_s=0.01) as w:
            await w.forecasts.reload()
            await come(lambda: len(w.books.resolved) > 5)
            assert w.books.fetched == ["1"]

    asyncio.run(main())


def test_onnx_runs_in_this_process_where_others_may_be_pickled(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, pickled=Host(python="/no/such/python")) as w:
            await w.forecasts.reload()
            assert await w.ask() == (11.0, "staging", "1")

    asyncio.run(main())


def test_hints(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            await w.forecasts.reload()
            w.books.aliases["staging"] = "2"
            assert not w.forecasts.hint(NAME, "Production") and not w.forecasts.hint("another", "staging")
            await asyncio.sleep(0.05)
            assert w.forecasts.health().model_version == "1"
            assert w.forecasts.hint(NAME, "staging")
            await come(lambda: w.forecasts.health().model_version == "2")

    asyncio.run(main())


def test_a_seed_is_planted_before_the_registry_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            w.books.aliases.clear()
            seeded = Forecasts(
                Engine(), w.books, Configuration(name="other"), lambda: w.books.aliases.update(staging="1")  # type: ignore[arg-type]
            )  # fmt: skip
            await seeded.start()
            assert seeded.health().model_loaded
            broken = Forecasts(Engine(), w.books, Configuration(ready_for_s=0), lambda: 1 / 0)  # type: ignore[arg-type,func-returns-value]
            await broken.start()
            assert broken.health().model_loaded

    asyncio.run(main())
