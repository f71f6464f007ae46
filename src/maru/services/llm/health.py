"""Whether answers are made: known from those that are, and else found out by asking for one token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from maru.engine.engine import Engine
from maru.engine.errors import Draining, NoRoom, QueueFull
from maru.engine.model import ModelSpec
from maru.http.health import Health, Readiness
from maru.runtimes.generation.types import Prompt, Sampling
from maru.services.llm.service import PROBE, Generations

log = logging.getLogger(__name__)

RETRY_S = 5.0
TRIES = 3
"""How many models may fail before the service does."""
_ASKED = Prompt(text="a", sampling=Sampling(max_tokens=1, temperature=0.0), reuse=False)


class Pulse:
    """`beating` while the service makes answers: one had a part in the last `every_s` seconds, or would have.

    A model that is busy isn't asked, for it would be in the way. If none of those it is busy with has had a part for
    so long, it is stuck.
    """

    def __init__(self, engine: Engine, generations: Generations, every_s: float) -> None:
        self._engine = engine
        self._generations = generations
        self._every_s = every_s
        self._failed = 0
        self._beating = False

    @property
    def beating(self) -> bool:
        return self._beating or self._heard()

    def _heard(self) -> bool:
        return self._engine.clock() - self._generations.heard_at < self._every_s

    async def check(self) -> None:
        """Find out."""
        self._beating = self._heard() or await self._answered()

    async def _answered(self) -> bool:
        """Whether an answer is made, or may be taken to be as before."""
        models = self._generations.models.handiest()[:TRIES]
        if self._beating and models and self._engine.manager.get(models[0].ref) is None:
            return True  # nothing is in memory, and nobody asks: loading one would tell no more than the last answer
        for model in models:
            if self._engine.manager.loading(model.ref):
                return self._beating
            if self._busy(model):
                break
            try:
                await self._ask(model)
            except (QueueFull, NoRoom, Draining):
                return self._beating
            except Exception:  # noqa: S112  (the engine has said what it was)
                continue
            self._failed = 0
            return True
        if models:
            self._failed += 1
        if self._beating:
            log.error("no answers are made any more")
        return False

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Check every so often, and after a failure soon, then less and less so."""

        async def keep() -> None:
            while True:
                again_s = RETRY_S * 2 ** min(self._failed, 10)
                await asyncio.sleep(self._every_s if self.beating else min(again_s, self._every_s))
                await self.check()

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _busy(self, model: ModelSpec) -> bool:
        line = self._engine.status(model.ref.name)
        return bool(line.waiting) or line.running >= line.max_running

    async def _ask(self, model: ModelSpec) -> None:
        async with self._generations.stream(_ASKED, model.ref.name, operation=PROBE) as generation:
            await generation.collected()


@dataclass(frozen=True, slots=True)
class GenerationHealth(Health):
    """Ready is a service that makes answers, whichever of its models are in memory."""

    pulse: Pulse

    def readiness(self) -> Readiness:
        state = self.engine.lifecycle.state
        beating = self.pulse.beating
        ready = state == "ready" and beating
        return Readiness(status="ready" if ready else "not_ready", state=state, models={"generate": beating})
