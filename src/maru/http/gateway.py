"""Several services behind one port."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class Gateway:
    """Sends `/name/...` to the service of that name, and everything else to `home`."""

    def __init__(self, services: Mapping[str, ASGIApp], home: ASGIApp) -> None:
        self._services = services
        self._home = home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = None
        if scope["type"] in ("http", "websocket"):
            name = scope["path"].partition("/")[2].partition("/")[0]
            service = self._services.get(name)
            if service is not None:
                scope = {**scope, "root_path": scope.get("root_path", "") + "/" + name}
        await (service or self._home)(scope, receive, send)
