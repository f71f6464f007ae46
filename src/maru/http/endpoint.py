"""From a request on the wire to a handler and back.

FastAPI describes an endpoint (its schemas, parameters and security, for OpenAPI); this class runs it: who is
asking, may they now, what do they say, and then the handler, which is cancelled when its client leaves.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, get_type_hints
from urllib.parse import parse_qsl

import orjson
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, create_model
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from maru.auth.limits import RateLimiter
from maru.auth.limits import headers as rate_headers
from maru.auth.principal import Authenticator
from maru.engine.engine import Engine
from maru.engine.errors import EngineError
from maru.http.call import Call
from maru.http.disconnect import DEPARTURE, ClientGone, unless_gone
from maru.http.errors import problem_of
from maru.http.problem import Envelope, Problem, respond
from maru.http.strict_json import loads

IN_THREAD_BYTES = 64 * 1024
"""A body larger than this takes over a millisecond to decode, and is decoded in a thread."""


@dataclass(slots=True)
class Reply:
    """An answer: `content` is JSON already encoded, or something that orjson encodes (arrays too)."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    def encoded(self) -> bytes:
        if isinstance(self.content, bytes):
            return self.content
        if isinstance(self.content, BaseModel):
            return self.content.model_dump_json().encode()
        return orjson.dumps(self.content, option=orjson.OPT_SERIALIZE_NUMPY)


Handler = Callable[..., Awaitable[Reply | Response]]


class Doorkeeper(Protocol):
    """What an endpoint asks of its service."""

    engine: Engine
    authenticator: Authenticator | None
    limiter: RateLimiter | None
    invalid_status: int


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method of a service: its handler, and what is said of it in the documentation.

    `answer` is the schema of a 200 (`content` its media types, where it isn't JSON), `errors` the status codes
    it can answer beside those that all can, `also` those whose schema is not the service's for problems.
    `decode` reads a body that is not plain JSON, and `form` is the JSON schema of one that is a form. A body larger
    than `max_body_bytes`, where that is less than the service's limit, is refused before it is read; the path then has
    no parameters. The handler's first parameter is a `Caller`; one that is a Pydantic class is read from the body, and
    the others from the path and the query.
    """

    method: str
    path: str
    handler: Handler
    answer: Any = None
    errors: tuple[int, ...] = ()
    protected: bool = True
    limited: bool = True
    media_types: tuple[str, ...] = ("application/json",)
    envelope: Envelope | None = None
    problem_schema: type[BaseModel] | None = None
    summary: str | None = None
    tags: tuple[str, ...] = ()
    content: Mapping[str, Any] | None = None
    also: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    decode: Callable[[Call, bytes], BaseModel] | None = None
    form: Mapping[str, Any] | None = None
    max_body_bytes: int | None = None


class Endpoint(APIRoute):
    """A FastAPI route that is run by this class."""

    def __init__(self, route: Route, service: Doorkeeper, envelope: Envelope, **described: Any) -> None:
        super().__init__(route.path, route.handler, methods=[route.method], **described)
        self._route = route
        self._service = service
        self._envelope = route.envelope or envelope
        self._body, self._values = _parameters(route.handler)
        self.app = self.answer

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The endpoint as an ASGI application."""
        call = Call(scope, receive, self._service.engine, self._route.path)
        scope["maru.calls"].append(call)
        rate: Mapping[str, str] = {}
        try:
            rate = await self._let_in(call)
            arguments = await self._arguments(call)
            work = self._route.handler(call, **arguments)
            reply = await unless_gone(receive, work, scope.get(DEPARTURE))
            if isinstance(reply, Response):
                await reply(scope, receive, send)
            else:
                await _send(reply, {**call.receipt(), **rate}, send)
        except ClientGone:
            return
        except Exception as error:
            problem = problem_of(error, self._service.invalid_status)
            problem.headers.update(rate)
            call.error = problem.code
            if problem.status == 500 and not isinstance(error, EngineError):
                call.exception = error
            await respond(problem, self._envelope, call.request_id)(scope, receive, send)

    async def _let_in(self, call: Call) -> Mapping[str, str]:
        """Check credentials and the caller's rate. The headers that tell what is left of it."""
        service = self._service
        if not self._route.protected or service.authenticator is None:
            return {}
        call.principal = await service.authenticator(call.header(b"authorization"))
        if not self._route.limited or service.limiter is None:
            return {}
        return rate_headers(await service.limiter.check(call.principal.id))

    async def _arguments(self, call: Call) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._values is not None:
            query = _query(call.scope["query_string"])
            given = {**query, **call.scope.get("path_params", {})}
            checked = self._values.model_validate(given)
            arguments = {name: getattr(checked, name) for name in type(checked).model_fields}
        if self._body is not None:
            arguments[self._body[0]] = await self._body_of(call, self._body[1])
        return arguments

    async def _body_of(self, call: Call, schema: type[BaseModel]) -> BaseModel:
        """The body, of the right content type, checked against its schema."""
        content_type = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
        if content_type not in self._route.media_types:
            raise Problem(415, "UNSUPPORTED_MEDIA_TYPE", f"send {' or '.join(filter(None, self._route.media_types))}")
        data = await read(call.receive)
        decode = self._route.decode
        parse = partial(_parse, schema) if decode is None else partial(decode, call)
        return parse(data) if len(data) <= IN_THREAD_BYTES else await asyncio.to_thread(parse, data)


def _parse(schema: type[BaseModel], data: bytes) -> BaseModel:
    return schema.model_validate(loads(data))


async def read(receive: Receive) -> bytes:
    """The whole body. The wire guard bounds its size and the time it may take."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    data = bytearray(message.get("body", b""))
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        data += message.get("body", b"")
    return bytes(data)


async def _send(reply: Reply, headers: Mapping[str, str], send: Send) -> None:
    body = reply.encoded()
    fields = [(b"content-type", reply.media_type.encode()), (b"content-length", str(len(body)).encode())]
    for source in (headers, reply.headers):
        fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in source.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _query(raw: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=64)) if raw else {}
    except ValueError:
        raise Problem(400, "BAD_REQUEST", "the query string is malformed") from None


def _parameters(handler: Handler) -> tuple[tuple[str, type[BaseModel]] | None, type[BaseModel] | None]:
    """The body parameter, if there is one, and a schema of the path and query parameters, if there are any."""
    hints = get_type_hints(handler, include_extras=True)
    body: tuple[str, type[BaseModel]] | None = None
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(handler).parameters.items():
        hint = hints[name]
        if any(isinstance(extra, Depends) for extra in getattr(hint, "__metadata__", ())):
            continue
        if inspect.isclass(hint) and issubclass(hint, BaseModel):
            body = (name, hint)
        else:
            values[name] = (hint, ... if parameter.default is parameter.empty else parameter.default)
    return body, create_model("Parameters", **values) if values else None
