"""A registry in a folder that a test changes under the server's hands."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from tests.contracts.forecast.graphs import folder

from maru.runtimes.registry.types import RegisteredModel, RegisteredVersion, RegistryUnavailable, VersionNotFound

NAME = "BTC_LSTM_Production"


class Shelf:
    """What the registry holds, as the test puts it there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)

    def put(self, version: str, model: bytes) -> Path:
        place = self.place / "versions" / version
        shutil.rmtree(place, ignore_errors=True)
        folder(place, model)
        return place

    def point(self, **aliases: str) -> None:
        known = self.aliases()
        new = self.place / "aliases.new"
        new.write_text(json.dumps({**known, **aliases}))
        new.replace(self.place / "aliases.json")

    def aliases(self) -> dict[str, str]:
        file = self.place / "aliases.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def say(self, word: str) -> None:
        """ "" for a sound registry, or one of `down`, `hangs`, `breaks`."""
        (self.place / "state").write_text(word)

    def state(self) -> str:
        file = self.place / "state"
        return file.read_text() if file.exists() else ""


class FolderRegistry:
    """`maru.runtimes.registry.types.Registry` over a `Shelf`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def resolve(self, name: str, alias: str) -> RegisteredVersion:
        await self._is_there()
        version = self._shelf.aliases().get(alias)
        if name != NAME or version is None:
            raise VersionNotFound("no version has that alias")
        return RegisteredVersion(NAME, version, f"models:/m-{version}")

    async def fetch(self, version: RegisteredVersion, folder: Path) -> Path:
        await self._is_there()
        with (self._shelf.place / "fetched").open("a") as log:
            log.write(version.version + "\n")
        shutil.copytree(self._shelf.place / "versions" / version.version, folder)
        await asyncio.sleep(0.01)
        return folder

    async def _is_there(self) -> None:
        await asyncio.sleep(0.002)
        match self._shelf.state():
            case "down":
                raise RegistryUnavailable("the registry does not answer")
            case "hangs":
                await asyncio.sleep(3600)
            case "breaks":
                raise RuntimeError("a secret path: /var/lib/registry")

    async def models(self) -> list[RegisteredModel]:
        return [RegisteredModel(NAME, self._shelf.aliases())]

    async def versions(self, name: str) -> list[RegisteredVersion]:
        return []

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        self._shelf.point(**{alias: version})

    async def aclose(self) -> None:
        pass
