"""One HTTP call while it is being answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends
from starlette.types import Receive, Scope

from maru.auth.principal import ANONYMOUS, Principal
from maru.engine.engine import Engine
from maru.engine.types import Request, Result


class Call:
    """What a handler may ask about its caller, and the engine's request made for it.

    The access log, the metrics and the receipt headers read from here what came of it.
    """

    __slots__ = (
        "engine", "error", "exception", "principal", "receive", "request", "request_id", "result", "route", "scope",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, engine: Engine, route: str) -> None:
        self.scope = scope
        self.receive = receive
        self.engine = engine
        self.route = route
        self.request_id: str = scope.get("maru.request_id", "")
        self.principal: Principal = ANONYMOUS
        self.request: Request | None = None
        self.result: Result | None = None
        self.error: str | None = None
        self.exception: BaseException | None = None

    def header(self, name: bytes) -> str | None:
        """The value of a header (lower-case name), or None unless it is there exactly once."""
        values = [value for key, value in self.scope["headers"] if key == name]
        return values[0].decode("latin-1") if len(values) == 1 else None

    async def infer(
        self,
        model: str,
        inputs: Sequence[Any],
        deadline_s: float,
        *,
        operation: str,
        costs: Sequence[float] | None = None,
        keys: Sequence[bytes] | None = None,
        partial: bool = False,
    ) -> Result:
        """Take the engine's road with these inputs on behalf of the caller."""
        self.request = Request(
            model,
            inputs,
            self.engine.clock() + deadline_s,
            tenant=self.principal.id,
            weight=self.principal.weight,
            operation=operation,
            costs=costs,
            keys=keys,
            partial=partial,
            id=self.request_id,
        )
        self.result = await self.engine.infer(self.request)
        return self.result

    def receipt(self) -> dict[str, str]:
        """The headers that say which model answered, from where, and how long each stage took."""
        result = self.result
        if result is None:
            return {}
        t = result.timings
        return {
            "x-model-version": str(result.ref),
            "x-cache": result.cache,
            "server-timing": f"queue;dur={t.queue_s * 1e3:.3f}, batch;dur={t.batch_s * 1e3:.3f}, "
            f"compute;dur={t.compute_s * 1e3:.3f}",
        }


def _unused() -> None:
    """Call parameters are given by the endpoint, so FastAPI must not read them from the request."""


Caller = Annotated[Call, Depends(_unused)]
"""The annotation of a handler's first parameter."""
