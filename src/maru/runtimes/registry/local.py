"""A registry in MLflow's database: the embedded one, or one that others share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from maru.runtimes.registry.staging import Staging
from maru.runtimes.registry.types import Bounds, RegisteredModel, RegisteredVersion, VersionNotFound

if TYPE_CHECKING:
    from maru.runtimes.registry.mlflow_store import MlflowStore

T = TypeVar("T")


class LocalRegistry:
    """MLflow's client in a thread. It is imported, and the store opened, when something is first asked of it.

    Of a folder in which nothing was published yet, asking makes nothing.
    """

    def __init__(self, store: str | Path, bounds: Bounds | None = None) -> None:
        """`store` is a database's URL, or the folder of an embedded registry."""
        self._at = store
        self._bounds = bounds or Bounds()
        self._store: MlflowStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="maru-registry")

    async def resolve(self, name: str, alias: str) -> RegisteredVersion:
        return await self._ask(lambda store: store.resolve(name, alias))

    async def fetch(self, version: RegisteredVersion, folder: Path) -> Path:
        def copy(store: MlflowStore) -> Path:
            with Staging(folder, self._bounds) as staging:
                store.fetch(version, staging)
            return folder

        return await self._ask(copy)

    async def models(self) -> list[RegisteredModel]:
        try:
            return await self._ask(lambda store: store.models())
        except VersionNotFound:
            return []

    async def versions(self, name: str) -> list[RegisteredVersion]:
        return await self._ask(lambda store: store.versions(name))

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        await self._ask(lambda store: store.set_alias(name, alias, version))

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, question: Callable[[MlflowStore], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: question(self._opened()))

    def _opened(self) -> MlflowStore:
        from maru.runtimes.registry.mlflow_store import MlflowStore, database

        if self._store is None:
            if isinstance(self._at, Path) and not database(self._at).exists():
                raise VersionNotFound("nothing was registered yet in the embedded registry")
            self._store = MlflowStore.of(self._at)
        return self._store
