"""From an alias of the registry to a model that the engine can load."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from maru.engine.errors import EngineError, ModelLoadFailed
from maru.engine.model import ModelSpec
from maru.engine.types import Limits
from maru.runtimes.registry.types import RegisteredVersion, Registry
from maru.services.forecast.model import Forecaster
from maru.services.forecast.pickled import Host, any_spec
from maru.services.forecast.schemas import Shape


@dataclass(frozen=True, slots=True)
class Opened:
    """A version whose files are here, and how it is served. They are needed as long as it is."""

    version: RegisteredVersion
    spec: ModelSpec
    folder: Path

    async def discard(self) -> None:
        """Remove the files."""
        await _remove(self.folder)


class Opener:
    """Asks the registry and brings the files, giving it `timeout_s` for each.

    Models take windows of `shape`. Those that are not ONNX are refused, or with `pickled` run in there.
    """

    def __init__(
        self, registry: Registry, name: str, shape: Shape, limits: Limits, pickled: Host | None, timeout_s: float
    ) -> None:
        self._registry = registry
        self._name = name
        self._shape = shape
        self._limits = limits
        self._pickled = pickled
        self._timeout_s = timeout_s

    async def resolve(self, alias: str) -> RegisteredVersion:
        """The version that the alias points to now."""
        async with asyncio.timeout(self._timeout_s):
            return await self._registry.resolve(self._name, alias)

    async def open(self, version: RegisteredVersion) -> Opened:
        """Bring the files, in a new folder, and check them."""
        folder = await asyncio.to_thread(_make)
        try:
            async with asyncio.timeout(self._timeout_s):
                root = await self._registry.fetch(version, folder / "model")
                return Opened(version, await asyncio.to_thread(self._spec, version, root), folder)
        except BaseException:
            await asyncio.shield(_remove(folder))
            raise

    async def aclose(self) -> None:
        await self._registry.aclose()

    def _spec(self, version: RegisteredVersion, root: Path) -> ModelSpec:
        spec_of = Forecaster.spec if self._pickled is None else partial(any_spec, host=self._pickled)
        shape = self._shape
        spec = spec_of(version, root, seq_len=shape.seq_len, n_features=shape.n_features, limits=self._limits)
        return replace(spec, pinned=True)


def cause(error: BaseException) -> str:
    """Why a model could not be opened, in words for callers. Those of files, of registries and of the engine are;
    of any other error the kind alone is told."""
    found = error.__cause__ if type(error) is ModelLoadFailed else error
    match found:
        case EngineError():
            return str(found)
        case TimeoutError():
            return "the registry did not answer in time"
        case _:
            return f"the model could not be loaded ({type(found).__name__})"


def _make() -> Path:
    return Path(tempfile.mkdtemp(prefix="maru-forecast-"))


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
