"""Reports every HTTP request once, when its response has been sent or its client has left."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maru.http.call import Call
from maru.telemetry.http_events import UNMATCHED, HttpEvent, HttpFinished, HttpStarted

CLIENT_CLOSED = 499
"""The status reported, as nginx does, when the client left before an answer."""


class Access:
    """ASGI around one service's app."""

    def __init__(self, app: ASGIApp, service: str, report: Callable[[HttpEvent], None]) -> None:
        self._app = app
        self._service = service
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = CLIENT_CLOSED
        sent = 0

        async def counting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        calls: list[Call] = []
        scope["maru.calls"] = calls
        self._report(HttpStarted(self._service))
        try:
            await self._app(scope, receive, counting)
        finally:
            call = calls[0] if calls else None
            calls.clear()  # a call has its scope: together they would wait for the garbage collector
            self._finish(scope, call, status, sent, time.monotonic() - started)

    def _finish(self, scope: Scope, call: Call | None, status: int, sent: int, seconds: float) -> None:
        result = call.result if call else None
        request = call.request if call else None
        self._report(
            HttpFinished(
                service=self._service,
                route=call.route if call else UNMATCHED,
                method=scope["method"],
                status=status,
                seconds=seconds,
                request_id=scope.get("maru.request_id", ""),
                principal=call.principal.id if call else "",
                bytes_out=sent,
                request=request,
                model=result.ref if result else None,
                cache=result.cache if result else None,
                items=len(request.inputs) if request else 0,
                error=call.error if call else None,
                exception=call.exception if call else None,
                traceparent=call.header(b"traceparent") if call else None,
            )
        )
