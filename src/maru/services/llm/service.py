"""How answers are asked of the models: through the engine, each as a stream of parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from maru.auth.principal import ANONYMOUS, Principal
from maru.engine.engine import Engine
from maru.engine.errors import ModelFailed, ModelLoadFailed
from maru.engine.types import Request, Result
from maru.http.call import Call
from maru.http.problem import Problem
from maru.runtimes.generation.types import Prompt
from maru.services.llm.generation import Collected, Generation, Served
from maru.services.llm.models import Models

OPERATION = "generate"
PROBE = "probe"
"""Operations: what a caller asks for, and what the service asks itself."""
CHARACTERS_A_TOKEN = 4
READ = 0.1
"""What a token that is read costs beside one that is made."""
EXPECTED = 512
"""Tokens of an answer that may have more: few that may have thousands do. Only decides how long it should take."""


class Generations:
    """Makes answers, each in `timeout_s` at the longest. `report` is told of each that is complete, but of probes."""

    def __init__(
        self,
        engine: Engine,
        models: Models,
        timeout_s: float,
        report: Callable[[Served], None] | None = None,
    ) -> None:
        self._engine = engine
        self._report = report or _unreported
        self.models = models
        self.timeout_s = timeout_s
        self.heard_at = float("-inf")
        """When any answer had its last part, on the engine's clock."""

    @asynccontextmanager
    async def stream(
        self,
        prompt: Prompt,
        model_id: str,
        *,
        call: Call | None = None,
        principal: Principal = ANONYMOUS,
        operation: str = OPERATION,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Generation]:
        """`async with` it: the answer to `prompt`. Leaving early stops the model and gives back its slot.

        Whatever keeps the model from beginning (a full queue, a prompt that is too long, a file that is no good)
        is raised before this is entered. A `call` is told what is done for it, and says for whom.
        """
        spec = self.models.spec(model_id)
        began = self._engine.clock()
        asking = principal if call is None else call.principal
        request = Request(
            spec.ref.name,
            [prompt],
            began + (timeout_s or self.timeout_s),
            tenant=asking.id,
            weight=asking.weight,
            operation=operation,
            costs=[_cost(prompt)],
            id=call.request_id if call else "",
        )
        if call is not None and call.request is None:
            call.request = request
        try:
            async with self._engine.stream(request) as stream:
                if call is not None and call.result is None:
                    call.result = Result([], stream.ref, "miss", stream.timings)
                report = self._report if operation != PROBE else _unreported
                first = await anext(stream.parts, None)
                if first is None:
                    raise ModelFailed("the model gave no answer")
                yield Generation(model_id, stream, first, began, self._engine.clock, self._heard, report)
        except ModelLoadFailed as error:
            raise not_loaded(error) from error

    def _heard(self, now: float) -> None:
        self.heard_at = now

    async def collect(self, call: Call, prompt: Prompt, model_id: str) -> Collected:
        """The whole answer."""
        async with self.stream(prompt, model_id, call=call) as generation:
            return await generation.collected()


def _unreported(served: Served) -> None:
    """Nobody asked for it."""


def not_loaded(error: ModelLoadFailed) -> Problem:
    """What a load that failed is to a caller: why, where it is the model's files that are no good."""
    cause = error.__cause__
    details = {"reason": str(cause)} if isinstance(cause, ModelLoadFailed) else {}
    return Problem(500, "MODEL_LOAD_FAILED", "the model could not be loaded", details)


def _cost(prompt: Prompt) -> float:
    """Of the tokens to be read and made."""
    if prompt.tokens is not None:
        read = len(prompt.tokens)
    else:
        given = (
            prompt.text if prompt.text is not None else "".join(str(m.get("content")) for m in prompt.messages or ())
        )
        read = len(given) // CHARACTERS_A_TOKEN
    return 1 + READ * read + min(prompt.sampling.max_tokens or EXPECTED, EXPECTED)
