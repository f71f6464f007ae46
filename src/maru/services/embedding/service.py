"""The embedding model in the engine: which it is, how it gets there, and how texts are sent to it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from maru.engine.engine import Engine
from maru.engine.errors import EngineError, ModelNotFound
from maru.engine.manager import Lease
from maru.engine.memory import Resident
from maru.engine.model import ModelSpec
from maru.engine.types import Limits, Result
from maru.http.call import Call
from maru.http.openai import ModelCard
from maru.runtimes.locate import locate
from maru.services.embedding.model import Precision, SentenceEncoder, Text, canonical
from maru.services.embedding.schemas import HealthResponse

log = logging.getLogger(__name__)

GEMMA = "google/embeddinggemma-300m"
MINILM = "all-MiniLM-L6-v2"
RETRY_S = 15.0
CHARACTERS_A_TOKEN = 4
"""Of English text. Only decides how long a text is expected to take, before its tokens are counted."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The service's settings. `model_name` None means the default: EmbeddingGemma for who has a hub token,
    MiniLM otherwise."""

    home: Path
    model_name: str | None = None
    precision: Precision = "int8"
    max_seq_length: int | None = None
    max_batch_size: int = 32
    max_batch_tokens: int = 512
    timeout_s: float = 30.0
    hf_token: str | None = None
    hf_endpoint: str | None = None

    def limits(self) -> Limits:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Limits(
            running=max(256, 4 * self.max_batch_size * workers),
            waiting=4096,
            deadline_s=self.timeout_s,
            max_batch_size=self.max_batch_size,
            max_batch_cost=self.max_batch_tokens,
            batch_spread=1.6,
            batch_fill_cost=self.max_batch_tokens * 0.375,
            workers=workers,
        )


class Embeddings:
    """The one model of the service."""

    def __init__(self, engine: Engine, configuration: Configuration) -> None:
        self._engine = engine
        self._configuration = configuration
        self._started = int(time.time())
        self.model_name = configuration.model_name or (GEMMA if configuration.hf_token else MINILM)
        self.model = self.model_name.rstrip("/").rpartition("/")[2]
        engine.repository.expect(self.model)

    async def start(self) -> None:
        """Find the model, downloading it if need be, and load it; try again until that has worked."""
        while True:
            try:
                spec = await asyncio.to_thread(self._spec)
                self._engine.repository.add(spec)
                await self._engine.manager.load(spec)
                return
            except (EngineError, OSError) as error:
                log.error("the model can't be loaded: %s; trying again in %d s", _cause(error), RETRY_S)
            await asyncio.sleep(RETRY_S)

    def _spec(self) -> ModelSpec:
        c = self._configuration
        folder = locate(self.model_name, c.home / "models", token=c.hf_token, endpoint=c.hf_endpoint)
        spec = SentenceEncoder.spec(
            self.model,
            folder,
            precision=c.precision,
            max_seq_length=c.max_seq_length,
            cache=c.home / "cache" / "onnx",
            limits=c.limits(),
        )
        return replace(spec, pinned=True)

    def resolve(self, name: str) -> str:
        """The engine's name of the model that a caller names; ModelNotFound when the name is another's."""
        if name in (self.model, self.model_name, "embedding"):
            return self.model
        raise ModelNotFound("no model of that name")

    def lease(self) -> Lease:
        return self._engine.manager.lease(self._engine.repository.resolve(self.model))

    async def embed(self, call: Call, texts: Sequence[Text], model: str | None = None) -> Result:
        """One `Embedding` a text, in order."""
        return await call.infer(
            model or self.model,
            texts,
            self._configuration.timeout_s,
            operation="embed",
            costs=[2.0 + len(text.content) / CHARACTERS_A_TOKEN for text in texts],
            keys=[canonical(text) for text in texts],
        )

    def resident(self) -> Resident | None:
        try:
            return self._engine.manager.get(self._engine.repository.resolve(self.model).ref)
        except EngineError:
            return None

    def health(self) -> HealthResponse:
        resident = self.resident()
        metadata = resident.model.metadata if resident else {}
        return HealthResponse(
            model_loaded=resident is not None,
            model=self.model_name,
            quantization=self._configuration.precision,
            dimension=metadata.get("dimension"),
            max_seq_length=metadata.get("max_seq_length"),
        )

    def cards(self) -> list[ModelCard]:
        return [ModelCard(id=self.model_name, created=self._started)]


def _cause(error: Exception) -> str:
    return str(error.__cause__ or error)
