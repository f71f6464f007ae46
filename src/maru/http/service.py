"""One inference service as an ASGI application: its routes, behind the wire guard, in front of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from maru.auth.limits import RateLimiter
from maru.auth.principal import Authenticator
from maru.engine.engine import Engine
from maru.http.access import Access
from maru.http.endpoint import Endpoint, Route
from maru.http.errors import MEANINGS, problem_of
from maru.http.problem import Envelope, Problem, respond
from maru.http.wire import Wire
from maru.telemetry.http_events import HttpEvent

ALWAYS = (400, 405, 408, 413, 431, 500)
PROTECTED = (401, 403, 429, 503)
WITH_BODY = (415,)


@dataclass(frozen=True, slots=True)
class Service:
    """What a service says of itself. `metric_prefix` is the document's own where it has one, as in
    `embed_requests_total`, which counts the requests to the routes that are `documented`."""

    name: str
    title: str
    version: str
    description: str
    port: int
    envelope: Envelope
    problem_schema: type[BaseModel]
    metric_prefix: str | None = None
    documented: tuple[str, ...] = ()
    invalid_status: int = 422
    max_body_bytes: int = 256 * 1024


class ServiceApp:
    """A service's ASGI application. Also what its endpoints ask for: engine, credentials, limits."""

    def __init__(
        self,
        service: Service,
        routes: Sequence[Route],
        *,
        engine: Engine,
        report: Callable[[HttpEvent], None],
        authenticator: Authenticator | None = None,
        limiter: RateLimiter | None = None,
        lifespan: Any = None,
    ) -> None:
        self.service = service
        self.engine = engine
        self.authenticator = authenticator
        self.limiter = limiter
        self.invalid_status = service.invalid_status
        self.api = FastAPIOffline(
            title=service.title,
            version=service.version,
            description=service.description,
            lifespan=lifespan,
            redirect_slashes=False,
            exception_handlers={HTTPException: self._no_route, Exception: self._failed},
        )
        self._fixed: dict[tuple[str, str], Endpoint] = {}
        for route in routes:
            endpoint = Endpoint(route, self, service.envelope, **self._described(route))
            self.api.router.routes.append(endpoint)
            if "{" not in route.path:
                self._fixed[route.method, route.path] = endpoint
        self.api.openapi = self._openapi  # type: ignore[method-assign]
        self._doors = {route.path.split("/")[1]: self._door(route.envelope) for route in routes if route.envelope}
        self._narrow = {
            route.path: self._door(route.envelope or service.envelope, route.max_body_bytes)
            for route in routes
            if route.max_body_bytes is not None
        }
        self._front = self._door(service.envelope)
        self.app = Access(self._enter, service.name, report)

    def _door(self, envelope: Envelope, max_body_bytes: int | None = None) -> Wire:
        return Wire(self._dispatch, envelope, max_body_bytes=max_body_bytes or self.service.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door_of(scope)(scope, receive, send)

    def _door_of(self, scope: Scope) -> Wire:
        """The door that a path is behind: `/v1` and `/v2` have error shapes of their own, some paths a limit."""
        path: str = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        return self._narrow.get(path) or self._doors.get(path[1:].partition("/")[0], self._front)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A path without parameters is looked up; FastAPI's router finds the others."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            endpoint = self._fixed.get((scope["method"], path))
            if endpoint is not None:
                await endpoint.answer(scope, receive, send)
                return
        await self.api(scope, receive, send)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        headers = {}
        if status == 405:
            headers["allow"] = self._allowed(request.scope)
        code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(status, "ERROR")
        problem = Problem(status, code, MEANINGS.get(status, "the request failed"), headers=headers)
        return self._refusal(problem, request)

    async def _failed(self, request: Request, error: Exception) -> Response:
        problem = problem_of(error, self.invalid_status)
        return self._refusal(problem, request)

    def _refusal(self, problem: Problem, request: Request) -> Response:
        return respond(problem, self._door_of(request.scope).envelope, request.scope.get("maru.request_id", ""))

    def _allowed(self, scope: Scope) -> str:
        """The methods of every route of this path (RFC 9110, 15.5.6)."""
        methods: set[str] = set()
        for route in self.api.router.routes:
            if route.matches(scope)[0] is not Match.NONE:
                methods |= getattr(route, "methods", None) or set()
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))

    def _described(self, route: Route) -> dict[str, Any]:
        """What OpenAPI says of a route: every status code it can answer, with its schema."""
        schema = route.problem_schema or self.service.problem_schema
        codes = {*ALWAYS, *route.errors}
        if route.protected and self.authenticator is not None:
            codes.update(PROTECTED)
        if route.method in ("POST", "PUT", "PATCH"):
            codes.update((*WITH_BODY, self.invalid_status))
        responses: dict[int | str, dict[str, Any]] = {
            code: {"model": schema, "description": MEANINGS[code]} for code in sorted(codes)
        }
        for code, other in route.also.items():
            responses[code] = {"model": other, "description": MEANINGS[code]}
        if route.content is not None:
            responses[200] = {"content": dict(route.content), "description": "OK"}
        bearer = HTTPBearer(auto_error=False, description="An access token or an API key.")
        guarded = route.protected and self.authenticator is not None
        return {
            "response_model": route.answer,
            "responses": responses,
            "summary": route.summary,
            "tags": list(route.tags),
            "response_class": Response if route.content is not None else JSONResponse,
            "dependencies": [Security(bearer)] if guarded else [],
            "openapi_extra": _form(route.form) if route.form is not None else None,
        }

    def _openapi(self) -> dict[str, Any]:
        """The OpenAPI document, without the 422 that FastAPI adds where this service answers otherwise."""
        if not self.api.openapi_schema:
            document = get_openapi(
                title=self.api.title,
                version=self.api.version,
                description=self.api.description,
                routes=self.api.routes,
            )
            for operations in document["paths"].values():
                for operation in operations.values():
                    answer = operation["responses"].get("422", {})
                    if "HTTPValidationError" in str(answer):
                        del operation["responses"]["422"]
            for name in ("HTTPValidationError", "ValidationError"):
                document.get("components", {}).get("schemas", {}).pop(name, None)
            self.api.openapi_schema = document
        return self.api.openapi_schema


def _form(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body beside that it may be JSON."""
    return {"requestBody": {"content": {"multipart/form-data": {"schema": dict(schema)}}}}
