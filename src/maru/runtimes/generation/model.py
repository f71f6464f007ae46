"""A generation model in a worker, whichever program that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from maru.engine.errors import EngineError, InputError, InputTooLong, ModelFailed, ModelLoadFailed, ModelNotReady
from maru.engine.model import Model
from maru.runtimes.generation.answer import Answer
from maru.runtimes.generation.exchange import Broken, Rejected, exchange
from maru.runtimes.generation.request import TEMPLATE, rehearsal, request
from maru.runtimes.generation.types import Part, Prompt, Sampling
from maru.runtimes.generation.worker import Worker

RESTART_S = 1.0
"""When to come back, for those whose answer was cut off because the model's process ended."""

_PROBE = Prompt(text="a", sampling=Sampling(max_tokens=1, temperature=0.0), reuse=False)


class GenerationModel(Model):
    """Streams the parts of the answer to a `Prompt`. Takes ownership of the worker, which is ready."""

    def __init__(self, worker: Worker, metadata: Mapping[str, Any]) -> None:
        self._worker = worker
        self.metadata = metadata

    async def stream(self, value: Prompt) -> AsyncGenerator[Part, None]:
        """Any Progress, then Pieces, then one Finished.

        InputError for a prompt that the model can't take, InputTooLong for one longer than its context.
        ModelNotReady when its process ends meanwhile: the next request loads the model again.
        """
        path, body = request(value)
        answer = Answer(value.sampling.logprobs)
        try:
            if (first := rehearsal(value)) is not None:
                async with aclosing(self._exchange(TEMPLATE, first)) as events:
                    await anext(events)
            async with aclosing(self._exchange(path, body)) as events:
                async for event in events:
                    for part in answer.parts(event):
                        yield part
            yield answer.finished()
        except Rejected as error:
            raise _typed(error, value) from None
        except Broken:
            if await self._ended():
                raise ModelNotReady("the model's process ended, and is started again", RESTART_S) from None
            raise ModelFailed("the model's process broke off its answer") from None

    def _exchange(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        return exchange(self._worker.socket, self._worker.key, path, body)

    def alive(self) -> bool:
        return self._worker.alive()

    def warm(self) -> None:
        """Answer once: only an answer shows that the model can give one. Then measure what it holds."""
        try:
            asyncio.run(self._probe())
        except EngineError as error:
            raise ModelLoadFailed("the model does not answer") from error
        self.memory_bytes = self._worker.memory_bytes()

    def close(self) -> None:
        self._worker.kill()

    async def _probe(self) -> None:
        async for _ in self.stream(_PROBE):
            pass

    async def _ended(self) -> bool:
        """Whether the process has ended: its sockets close a moment before that can be told of itself."""
        for _ in range(20):
            if not self._worker.alive():
                return True
            await asyncio.sleep(0.005)
        return False


def _typed(error: Rejected, prompt: Prompt) -> EngineError:
    """What the worker refused, in words that are ours: its own may repeat what a person wrote."""
    if error.kind == "exceed_context_size_error":
        asked, room = error.fields.get("n_prompt_tokens"), error.fields.get("n_ctx")
        return InputTooLong(f"the prompt has {asked} tokens, and the model's context holds {room}")
    if error.status == 400:
        return InputError(_REFUSALS.get(_told(error), "the model can't take this request"))
    if error.status == 500 and prompt.messages is not None:
        return InputError("the model's chat template does not take these messages")
    return ModelFailed(f"the model's process gave up: {error.status} {error.kind}")


_REFUSALS = {
    "grammar": "the grammar or the JSON schema can't be used",
    "invalid tokens": "the prompt holds a token that is none of the model's",
    "tool": "the tools can't be used with this model",
}


def _told(error: Rejected) -> str:
    message = str(error.fields.get("message", "")).lower()
    return next((word for word in _REFUSALS if word in message), "")
