"""A registry in MLflow's database: the embedded one, or one that others share."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from maru.runtimes.registry.child import Child
from maru.runtimes.registry.types import Bounds, RegisteredModel, RegisteredVersion, VersionNotFound


class LocalRegistry:
    """MLflow's client, in a process of its own that is started when something is first asked of it.

    It is a large program in Python: in the process that serves, each question would hold up every request for as
    long as it takes, and its memory would be ours for good. Of a folder in which nothing was published yet, asking
    makes nothing.
    """

    def __init__(self, store: str | Path, bounds: Bounds | None = None) -> None:
        """`store` is a database's URL, or the folder of an embedded registry."""
        self._child = Child(store, bounds or Bounds())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="maru-registry")

    async def resolve(self, name: str, alias: str) -> RegisteredVersion:
        found: RegisteredVersion = await self._ask("resolve", name, alias)
        return found

    async def fetch(self, version: RegisteredVersion, folder: Path) -> Path:
        await self._ask("fetch", version, folder)
        return folder

    async def models(self) -> list[RegisteredModel]:
        try:
            found: list[RegisteredModel] = await self._ask("models")
        except VersionNotFound:
            return []
        return found

    async def versions(self, name: str) -> list[RegisteredVersion]:
        found: list[RegisteredVersion] = await self._ask("versions", name)
        return found

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        await self._ask("set_alias", name, alias, version)

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._child.close()

    async def _ask(self, method: str, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._child.ask, method, *given)
