"""The parts of the generation service, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from maru.engine.engine import Engine
from maru.http.endpoint import Route
from maru.http.health import Health, Render
from maru.runtimes.generation.catalogue import Catalogue
from maru.services.llm.configuration import Configuration
from maru.services.llm.declaration import declared
from maru.services.llm.generate_extension import TextGeneration
from maru.services.llm.generation import Served
from maru.services.llm.health import GenerationHealth, Pulse
from maru.services.llm.models import Models
from maru.services.llm.openai import OpenAI
from maru.services.llm.routes import Routes
from maru.services.llm.service import Generations
from maru.services.llm.tensors import TextInference, TextTensors

log = logging.getLogger(__name__)


class Generating:
    """One generation service: its routes, and what runs beside them.

    `catalogue` is the folder of models; `seed` is called once in a thread before it is first looked at, to put a
    starter into one that is empty. `report` is told of each answer that is complete.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        configuration: Configuration,
        *,
        seed: Callable[[], None] | None = None,
        report: Callable[[Served], None] | None = None,
    ) -> None:
        self._engine = engine
        self._seed = seed
        self.service = declared(configuration.timeout_s)
        self.models = Models(engine, catalogue, configuration)
        self.generations = Generations(engine, self.models, configuration.timeout_s, report)
        self._pulse = Pulse(engine, self.generations, configuration.beat_s)

    def health(self, render: Render) -> GenerationHealth:
        return GenerationHealth(self._engine, (), render, self._pulse)

    def routes(self, health: Health) -> list[Route]:
        """Every endpoint, of the document and of the platform."""
        return [
            *Routes(self._engine, self.generations, self.service.envelope).routes(),
            *OpenAI(self._engine, self.generations).routes(),
            *TextGeneration(self._engine, self.generations).routes(),
            *TextInference(self._engine, health, TextTensors(self.generations)).routes(),
            *health.routes(),
        ]

    async def start(self) -> None:
        """Find the models, load those that are to stay, and have a first answer made."""
        if self._seed is not None:
            try:
                await asyncio.to_thread(self._seed)
            except Exception as error:
                log.error("the starter model could not be put into its place (%s)", type(error).__name__)
        await self.models.look()
        await self.models.load_pinned()
        await self._pulse.check()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The folder is followed, and answers are tried, until no request is answered any more."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.models.followed())
            await stack.enter_async_context(self._pulse.kept())
            yield
