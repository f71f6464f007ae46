"""Which models can be asked: what the folder holds, made known to the engine as it changes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from maru.engine.engine import Engine
from maru.engine.errors import ModelNotFound
from maru.engine.memory import Resident
from maru.engine.model import ModelSpec
from maru.engine.repository import LATEST
from maru.engine.types import Limits, ModelRef
from maru.http.openai import ModelCard
from maru.http.problem import Problem
from maru.runtimes.generation.catalogue import Catalogue, Entry
from maru.services.llm.configuration import GROUP, Configuration
from maru.services.llm.schemas import ModelInfo, ModelStatus

log = logging.getLogger(__name__)

TAKEN = "another service has a model of that name"
LONG = ("chat_template",)


class Models:
    """The models of the service: loaded when they are asked for, those that are `pinned` at the start and for good.

    A model whose files have changed is another version. Answers under way are still made by the one before, which
    is unloaded when they are done.
    """

    def __init__(self, engine: Engine, catalogue: Catalogue, configuration: Configuration) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._configuration = configuration
        self._entries: dict[str, Entry] = {}
        self._specs: dict[str, ModelSpec] = {}
        self._leaving: set[ModelRef] = set()
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        """See what the folder holds now."""
        async with self._looking:
            if await asyncio.to_thread(self._catalogue.scan):
                self._take({entry.id: entry for entry in self._catalogue})
            for ref in list(self._leaving):
                await self._part(ref)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Look again every so often, in the background."""

        async def follow() -> None:
            while True:
                await asyncio.sleep(self._configuration.look_s)
                await self.look()

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def load_pinned(self) -> None:
        """Bring those into memory that are to stay there. One that fails is tried again when it is asked."""
        for name in self._configuration.pinned:
            spec = self._specs.get(name)
            if spec is None:
                log.error("a model that is to be loaded at the start is not there, or can't be used")
                continue
            try:
                await self._engine.manager.load(spec)
            except Exception as error:
                log.error("%s can't be loaded at the start (%s)", spec.ref, type(error).__name__)

    def spec(self, model_id: str) -> ModelSpec:
        """How that model is served. ModelNotFound, or a Problem for one that can't be used."""
        entry = self._find(model_id)
        spec = self._specs.get(model_id)
        if spec is None:
            reason = entry.problem or TAKEN
            raise Problem(500, "MODEL_LOAD_FAILED", f"the model can't be used: {reason}", {"reason": reason})
        return spec

    async def load(self, model_id: str) -> None:
        """Bring it into memory. Raises what `spec` and the engine's manager do."""
        await self._engine.manager.load(self.spec(model_id))

    async def unload(self, model_id: str) -> bool:
        """Free its memory; False while it is in use. ModelNotFound."""
        ref, manager = self._find(model_id).ref, self._engine.manager
        if manager.loading(ref):
            return False
        return manager.get(ref) is None or await manager.unload(ref)

    def sha256(self, model_id: str) -> str:
        """The checksum of its files, which are read for it. ModelNotFound."""
        return self._find(model_id).sha256()

    def all(self) -> list[ModelInfo]:
        """Every model, without what is long of it."""
        return [ModelInfo(**self._described(entry, without=LONG)) for entry in self._entries.values()]

    def status(self, model_id: str) -> ModelStatus:
        """All that is known of one model. ModelNotFound."""
        entry = self._find(model_id)
        counts: dict[str, Any] = {}
        if model_id in self._specs:
            line = self._engine.status(model_id)
            counts = {"running": line.running, "waiting": line.waiting}
        return ModelStatus(**self._described(entry), **counts, version=entry.version)

    def cards(self) -> list[ModelCard]:
        """The models that can be asked, for OpenAI's list."""
        return [ModelCard(id=name, created=int(self._entries[name].modified)) for name in self._specs]

    def handiest(self) -> Sequence[ModelSpec]:
        """The models that can be asked, those first that take least to answer: in memory and asked last, so that
        which is the least recently used stays what it is, then those that are pinned, then the small."""

        def trouble(spec: ModelSpec) -> tuple[float, bool, int]:
            resident = self._resident(spec)
            return -resident.used if resident else math.inf, not spec.pinned, self._entries[spec.ref.name].size

        return sorted(self._specs.values(), key=trouble)

    def _find(self, model_id: str) -> Entry:
        entry = self._entries.get(model_id)
        if entry is None:
            named = f"'{model_id}' " if model_id.isprintable() and len(model_id) <= 128 else ""
            raise ModelNotFound(f"Model {named}not found in registry")
        return entry

    def _resident(self, spec: ModelSpec) -> Resident | None:
        return self._engine.manager.get(spec.ref)

    def _described(self, entry: Entry, without: Collection[str] = ()) -> dict[str, Any]:
        spec = self._specs.get(entry.id)
        resident = None if spec is None else self._resident(spec)
        facts = entry.description.facts if entry.description else {}
        return {
            "model_id": entry.id,
            "type": entry.kind,
            "context_length": entry.context_length,
            "loaded": resident is not None,
            "state": self._state(spec, resident),
            "size_bytes": entry.size,
            "expected_memory_bytes": entry.description.memory_bytes if entry.description else None,
            "memory_bytes": resident.model.memory_bytes if resident else None,
            "pinned": spec is not None and spec.pinned,
            "error": entry.problem or (TAKEN if spec is None else None),
            "details": {name: value for name, value in facts.items() if name not in without},
        }

    def _state(self, spec: ModelSpec | None, resident: Resident | None) -> str:
        if spec is None:
            return "invalid"
        if resident is not None:
            return "loaded"
        return "loading" if self._engine.manager.loading(spec.ref) else "available"

    def _take(self, found: dict[str, Entry]) -> None:
        """Serve what was found, and what is no longer there no more."""
        repository = self._engine.repository
        others = {spec.ref.name for spec in repository} - self._specs.keys()
        specs = {name: self._spec(entry) for name, entry in found.items() if entry.description and name not in others}
        for name in self._specs.keys() - specs.keys():
            ref = self._specs[name].ref
            repository.remove(name, ref.version)
            self._leaving.add(ref)
        for spec in specs.values():
            self._leaving.update(old.ref for old in repository.add(spec, LATEST))
            self._leaving.discard(spec.ref)
        self._entries, self._specs = found, specs

    def _spec(self, entry: Entry) -> ModelSpec:
        c = self._configuration
        known = self._specs.get(entry.id)
        if known is not None and known.ref == entry.ref:
            return known
        assert entry.description is not None
        limits = Limits(running=entry.runtime.slots, waiting=c.waiting, deadline_s=c.timeout_s)
        return ModelSpec(
            entry.ref,
            entry.load,
            limits,
            memory_bytes=entry.description.memory_bytes,
            pinned=entry.id in c.pinned,
            on_demand=True,
            group=GROUP,
        )

    async def _part(self, ref: ModelRef) -> None:
        """Unload what is served no more, once it is not in use."""
        await self._engine.manager.unload(ref)
        if self._engine.manager.get(ref) is None and not self._engine.manager.loading(ref):
            self._leaving.discard(ref)
