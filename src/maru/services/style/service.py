"""The style model in the engine: which it is, how it gets there, and how texts and images are sent to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from maru.engine.engine import Engine
from maru.engine.errors import DeadlineUnreachable, EngineError, ModelNotFound, ModelNotReady, QueueFull, Refused
from maru.engine.model import ModelSpec
from maru.engine.types import Limits, Result
from maru.http.call import Call
from maru.http.errors import problem_of
from maru.http.fetch import FetchError
from maru.http.problem import Problem
from maru.services.style.bundle import MANIFEST
from maru.services.style.images import Images
from maru.services.style.machine import Machine
from maru.services.style.model import (
    NAME,
    Bundle,
    Inputs,
    Picture,
    StyleReader,
    Texts,
    UnreadableImage,
    canonical,
    cost,
)
from maru.services.style.schemas import ImageRequest, ModelState, QueueStatus
from maru.services.style.starter import kept, starter

log = logging.getLogger(__name__)

RETRY_S = 15.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """The service's settings. `model` names a bundle's folder; None means what was pulled or trained into `home`, or
    the starter where there is nothing."""

    home: Path
    model: str | None = None
    max_concurrent: int = 2
    queue_size: int = 10
    timeout_s: float = 30.0

    def folder(self) -> Path:
        """Where the bundle is. ModelUnavailable where there is none at all."""
        if self.model is not None:
            return Path(self.model).expanduser()
        own = kept(self.home)
        return own if (own / MANIFEST).is_file() else starter()

    def limits(self) -> Limits:
        """In model calls: each gets a worker of its own, and is not joined with another caller's."""
        return Limits(
            running=self.max_concurrent,
            waiting=self.queue_size,
            deadline_s=self.timeout_s,
            max_batch_size=1,
            workers=self.max_concurrent,
        )


class Styles:
    """The one model of the service."""

    def __init__(
        self,
        engine: Engine,
        configuration: Configuration,
        open_bundle: Callable[[Path], Bundle],
        images: Images,
        machine: Machine,
    ) -> None:
        self._engine = engine
        self._open_bundle = open_bundle
        self._configuration = configuration
        self._images = images
        self.machine = machine
        engine.repository.expect(NAME)

    async def start(self) -> None:
        """Load the model, and try again until that has worked."""
        while True:
            try:
                spec = await asyncio.to_thread(self._spec)
                self._engine.repository.add(spec)
                await self._engine.manager.load(spec)
                return
            except (EngineError, OSError, ValueError) as error:
                log.error("the model can't be loaded: %s; trying again in %d s", str(error.__cause__ or error), RETRY_S)
            await asyncio.sleep(RETRY_S)

    def _spec(self) -> ModelSpec:
        c = self._configuration
        return StyleReader.spec(c.folder(), self._open_bundle, c.limits())

    def resolve(self, name: str) -> str:
        """The engine's name of the model that a caller names; ModelNotFound when the name is another's."""
        if name != NAME:
            raise ModelNotFound("no model of that name")
        return NAME

    @property
    def timeout_s(self) -> float:
        """A request's deadline, in seconds from when it came."""
        return self._configuration.timeout_s

    @property
    def places(self) -> int:
        """How many model calls run and wait at the most."""
        return self._configuration.max_concurrent + self._configuration.queue_size

    async def read(
        self, call: Call, inputs: Sequence[Inputs], *, began: float, model: str = NAME, partial: bool = False
    ) -> Result:
        """What the model finds in each, in order. `began`, on the engine's clock, is when its deadline started to run.

        A refusal is raised as the document has it: with the queue's state, or the time when the model should be ready.
        """
        try:
            return await call.infer(
                model,
                inputs,
                began + self.timeout_s - self._engine.clock(),
                operation="read",
                costs=[cost(each) for each in inputs],
                keys=[canonical(each) for each in inputs],
                partial=partial,
            )
        except Refused as error:
            raise self._refusal(error) from error
        except UnreadableImage as error:
            raise Problem(422, "IMAGE_UNREADABLE", str(error), {"reason": str(error)}) from error

    async def read_text(self, call: Call, text: str, *, began: float) -> Result:
        """What the model finds in one text."""
        return await self.read(call, [Texts((text,))], began=began)

    async def picture(self, call: Call, asked: ImageRequest) -> Picture:
        """The image of a request, fetched if need be."""
        data = asked.file
        if data is None:
            assert asked.image_url is not None
            try:
                data = await self._images.fetch(asked.image_url)
            except FetchError as error:
                told = {"request_id": call.request_id, "reason": error.reason}
                log.info("image_fetch_failed", extra={"fields": told})
                raise Problem(502, "IMAGE_FETCH_FAILED", str(error), {"reason": str(error)}) from None
            except Refused as error:
                raise self._refusal(error) from error
        return await asyncio.to_thread(Picture.of, data)

    def completed(self, call: Call, seconds: float) -> None:
        """The document's log record. Nothing of what was read is in it."""
        version = call.result.ref.version if call.result else None
        details = {
            "request_id": call.request_id,
            "processing_time": seconds,
            "model_version": version,
            "gpu_memory_used": self.machine.gpu_memory_used,
        }
        said = {"timestamp": _timestamp(datetime.now(UTC)), "message": "Inference completed", "details": details}
        log.info("Inference completed", extra={"fields": said})

    def queue_status(self) -> QueueStatus:
        """How busy the model is, images on their way to it included."""
        running = waiting = 0
        wait: float | None = None
        try:
            status = self._engine.status(NAME)
        except EngineError:  # there is no model, so there is no queue
            pass
        else:
            running, waiting, wait = status.running, status.waiting, status.estimated_wait_s
        return QueueStatus(
            active_requests=running,
            queued_requests=waiting + self._images.fetching,
            max_concurrent=self._configuration.max_concurrent,
            estimated_wait_time=round(wait or 0.0, 3),
        )

    def state(self) -> ModelState:
        """The document's model state."""
        model, version = self._loaded()
        status = self.queue_status()
        state = self._engine.lifecycle.state
        return ModelState(
            model_ready=model is not None and state == "ready",
            model_version=version,
            gpu_available=self.machine.has_gpu,
            concurrent_requests=status.active_requests,
            queue_size=status.queued_requests,
            queue_status=status,
            state=state,
            stand_in=model.stand_in if model else None,
            quality=model.quality if model else None,
            styles=model.styles if model else (),
        )

    def _loaded(self) -> tuple[StyleReader | None, str | None]:
        try:
            resident = self._engine.manager.get(self._engine.repository.resolve(NAME).ref)
        except EngineError:
            return None, None
        if resident is None:
            return None, None
        assert isinstance(resident.model, StyleReader)
        return resident.model, resident.spec.ref.version

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles that the loaded model knows."""
        model, _ = self._loaded()
        return tuple(model.styles) if model else ()

    def _refusal(self, error: Refused) -> Problem:
        problem = problem_of(error, 400)
        told: dict[str, Any] = problem.details
        if isinstance(error, QueueFull | DeadlineUnreachable):
            told["queue_status"] = self.queue_status().model_dump()
        elif isinstance(error, ModelNotReady):
            ready = datetime.now(UTC) + timedelta(seconds=error.retry_after_s)
            told["estimated_ready_time"] = _timestamp(ready)
        return problem


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")[:-6] + "Z"
