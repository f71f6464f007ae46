"""The forecast model in the engine: which the registry's alias means, how it gets there, and how it follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from maru.engine.engine import Engine
from maru.engine.errors import ModelLoadFailed, ModelNotFound
from maru.engine.memory import Resident
from maru.engine.types import ModelRef, Result
from maru.http.call import Call
from maru.runtimes.errors import ModelUnavailable
from maru.runtimes.registry.types import RegisteredVersion, Registry, RegistryError
from maru.services.forecast.configuration import Configuration
from maru.services.forecast.model import canonical
from maru.services.forecast.opening import Opened, Opener, cause
from maru.services.forecast.schemas import HealthResponse, Shape
from maru.services.forecast.window import Window

log = logging.getLogger(__name__)

REMEMBERED = 8
"""Versions whose alias is known, beside the one that serves: those that still answer as they are swapped out."""


class ReloadFailed(Exception):
    """The model of that alias is not served, and what was served before still is. The message is one for callers."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and the alias that it was asked for by."""

    alias: str
    opened: Opened

    @property
    def version(self) -> str:
        return self.opened.version.version

    @property
    def source(self) -> str:
        return self.opened.version.source

    @property
    def ref(self) -> ModelRef:
        return self.opened.spec.ref


class Forecasts:
    """The one model of the service, which changes.

    It is what an alias of the registry points to: at the start, after `reload`, and, when it is followed, as the
    alias moves. Changes are made one after another; predictions know nothing of them. `seed` is called once in
    a thread before the registry is first asked, to put a starter into a registry that has nothing.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        configuration: Configuration,
        seed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        c = configuration
        self._engine = engine
        self._configuration = c
        self._seed = seed
        self.model = c.name
        self.shape = Shape(c.seq_len, c.n_features)
        self._opener = Opener(registry, c.name, self.shape, c.limits(), c.pickled, c.registry_timeout_s)
        self._served: Served | None = None
        self._aliases: dict[ModelRef, str] = {}
        self._error: str | None = None
        self._changing = asyncio.Lock()
        self._rounds: dict[str, asyncio.Task[Served]] = {}
        self._changes: set[asyncio.Task[Served]] = set()
        self._hint = asyncio.Event()
        self._refused: RegisteredVersion | None = None
        engine.repository.expect(self.model)

    async def start(self) -> None:
        """Load the model, and try again for as long as the document says while that fails."""
        c = self._configuration
        until = self._engine.clock() + c.ready_for_s
        await self._plant()
        while True:
            async with self._changing:
                if self._served is not None:  # by a reload meanwhile
                    return
                try:
                    await self._take(c.alias)
                    return
                except ReloadFailed as error:
                    log.error("the model can't be loaded: %s", str(error))
            if self._engine.clock() + c.ready_every_s > until:
                log.error("no model after %g s; POST /reload tries again", c.ready_for_s)
                return
            await asyncio.sleep(c.ready_every_s)

    async def reload(self, alias: str | None = None) -> Served:
        """Serve what `alias` (by default the configured one) points to now; ReloadFailed when that can't be.

        When this returns, what was served before has given its last answer. All who ask for the same alias
        before the registry is asked share one change.
        """
        alias = alias or self._configuration.alias
        change = self._rounds.get(alias)
        if change is None:
            change = self._rounds[alias] = asyncio.create_task(self._round(alias))
            self._changes.add(change)
            change.add_done_callback(self._changed)
        return await asyncio.shield(change)

    async def follow(self) -> None:
        """Serve what the alias points to, as it moves, until cancelled."""
        told = ""
        while True:
            await self._hinted()
            try:
                async with self._changing:
                    await self._follow()
                told = ""
            except ReloadFailed as error:
                if str(error) != told:
                    log.error("the alias can't be followed: %s", str(error))
                told = str(error)

    def hint(self, name: str, alias: str) -> bool:
        """That alias has moved, somebody says; whether it is the one that is served, and is looked at."""
        if name != self.model or alias != self._alias:
            return False
        self._hint.set()
        return True

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the alias in the background; in the end let go of the registry and of all files."""
        following = asyncio.create_task(self.follow())
        try:
            yield
        finally:
            ending = {following, *self._changes}
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            await self._opener.aclose()
            if self._served is not None:
                await self._served.opened.discard()

    async def predict(
        self, call: Call, windows: Sequence[Window], *, model: str | None = None, partial: bool = False
    ) -> Result:
        """One close a window, in order, all by one version. `partial` has an exception in the place of one that
        fails; without it the first of them is raised."""
        keys = [canonical(window) for window in windows]
        return await call.infer(
            model or self.model,
            windows,
            self._configuration.timeout_s,
            operation="forecast",
            keys=keys,
            partial=partial,
        )

    def label(self, ref: ModelRef) -> dict[str, str]:
        """The alias and the version that an answer is told to be from."""
        return {"model_alias": self._aliases.get(ref, self._alias), "model_version": ref.version}

    def resolve(self, name: str) -> str:
        """The engine's name of the model that a caller names; ModelNotFound when the name is another's."""
        if name in (self.model, "forecast"):
            return self.model
        raise ModelNotFound("no model of that name")

    def health(self) -> HealthResponse:
        c, served, resident = self._configuration, self._served, self._resident()
        loaded = served is not None and resident is not None
        metadata = resident.model.metadata if resident else {}
        return HealthResponse(
            model_loaded=loaded,
            model_alias=served.alias if served else None,
            model_version=served.version if served else None,
            model_name=self.model,
            source=served.source if served else None,
            seq_len=c.seq_len,
            n_features=c.n_features,
            features=metadata.get("features"),
            close_index=metadata.get("close_index"),
            interval=metadata.get("interval"),
            reload_error=self._error,
        )

    @property
    def _alias(self) -> str:
        return self._served.alias if self._served else self._configuration.alias

    def _resident(self) -> Resident | None:
        return self._engine.manager.get(self._served.ref) if self._served else None

    async def _plant(self) -> None:
        if self._seed is None:
            return
        try:
            await self._seed()
        except Exception as error:
            log.error("the starter model could not be registered (%s)", type(error).__name__)

    async def _round(self, alias: str) -> Served:
        async with self._changing:
            # Who comes from now on may know of a later move of the alias: theirs is the next round.
            del self._rounds[alias]
            return await self._take(alias)

    async def _hinted(self) -> None:
        try:
            async with asyncio.timeout(self._configuration.poll_s or None):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()

    async def _follow(self) -> None:
        served = self._served
        version = await self._resolved(self._alias)
        if served is not None and (served.version, served.source) == (version.version, version.source):
            self._error = None
        elif version != self._refused:  # which will not have become better
            await self._take(self._alias, version)

    async def _resolved(self, alias: str) -> RegisteredVersion:
        try:
            return await self._opener.resolve(alias)
        except Exception as error:
            raise self._failed(error) from error

    async def _take(self, alias: str, version: RegisteredVersion | None = None) -> Served:
        """Fetch, open and swap in. Whatever fails, what was served is served as before."""
        version = version or await self._resolved(alias)
        try:
            opened = await self._opener.open(version)
            served = Served(alias, await self._swapped(alias, opened))
        except Exception as error:
            if isinstance(error, ModelLoadFailed) and not isinstance(error, (RegistryError, ModelUnavailable)):
                self._refused = version
            raise self._failed(error) from error
        before, self._served, self._error, self._refused = self._served, served, None, None
        if before is not None and before.opened is not served.opened:
            await before.opened.discard()
        return served

    async def _swapped(self, alias: str, opened: Opened) -> Opened:
        """What is served once `opened` is: itself, or what is served already when that is just the same."""
        served, ref, known = self._served, opened.spec.ref, self._aliases
        if served is not None and served.ref == ref and self._resident() is not None:
            self._aliases = {**known, ref: alias}
            await opened.discard()
            return served.opened
        # The alias is known before the swap, whose first answers come before it returns.
        self._aliases = {**dict(list(known.items())[-REMEMBERED:]), ref: alias}
        try:
            await self._engine.manager.swap(opened.spec)
        except BaseException:
            self._aliases = known
            await asyncio.shield(opened.discard())
            raise
        return opened

    def _changed(self, task: asyncio.Task[Served]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # those who wait for it have it; if all have left, nobody needs it

    def _failed(self, error: BaseException) -> ReloadFailed:
        self._error = cause(error)
        return ReloadFailed(self._error)
