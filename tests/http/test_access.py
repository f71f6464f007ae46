"""What is left of a request once it has been reported."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from pydantic import BaseModel
from starlette.types import Message

from maru.engine.engine import Engine
from maru.http.call import Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import detail
from maru.http.service import Service, ServiceApp
from maru.telemetry.http_events import HttpEvent


class Problem(BaseModel):
    detail: str


def test_a_request_is_forgotten_without_the_garbage_collector() -> None:
    """Otherwise its body and its answer stay for as long as the collector has other things to do."""
    seen: list[weakref.ref[Any]] = []
    reported: list[HttpEvent] = []

    class Body:
        """Large, in earnest."""

    async def handler(call: Caller) -> Reply:
        call.scope["body"] = Body()
        seen.append(weakref.ref(call.scope["body"]))
        return Reply({})

    app = ServiceApp(
        Service("s", "S", "1", "", 0, detail, Problem),
        [Route("GET", "/", handler, dict)],
        engine=Engine(),
        report=reported.append,
    )

    async def ask() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None: ...

        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "query_string": b"", "raw_path": b"/"}
        await app({**scope, "headers": [(b"host", b"localhost")]}, receive, send)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask())
        reported.clear()
        assert seen and seen[0]() is None
    finally:
        gc.enable()
