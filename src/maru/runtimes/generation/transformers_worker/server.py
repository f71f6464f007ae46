"""What the worker answers over HTTP."""

import hmac
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .answer import Answer
from .generation import Generation


class Refused(Exception):
    """What is answered in place of an answer: a status, and llama.cpp's name of the reason."""

    def __init__(self, message: str, status: int = 400, kind: str = "invalid_request_error", **more: int) -> None:
        fields = {"code": status, "type": kind, "message": message, **more}
        self.response = JSONResponse({"error": fields}, status)


class Events(StreamingResponse):
    """An answer's events. What has not been generated when their reader leaves never is."""

    def __init__(self, answer: Answer) -> None:
        self._events = answer.events()
        super().__init__(self._lines(), media_type="text/event-stream")

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)

    async def _lines(self) -> AsyncIterator[bytes]:
        async for event in self._events:
            yield b"data: " + json.dumps(event).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"


class Server:
    """An ASGI application of two paths: routes and middleware would be on the way of every first token."""

    def __init__(self, generation: Generation, key: str) -> None:
        self._generation, self._key = generation, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._response(Request(scope, receive))
        except Refused as error:
            response = error.response
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        path = request.scope["path"]
        if path == "/health":
            return JSONResponse({"status": "ok"})
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._key):
            raise Refused("no key", 401, "authentication_error")
        return Events(_answer(self._generation, path, await request.json()))


def _answer(generation: Generation, path: str, asked: dict[str, Any]) -> Answer:
    prompt = _prompt(generation, path, asked)
    if not all(type(token) is int and 0 <= token < generation.vocabulary for token in prompt):
        raise Refused("the prompt contains invalid tokens")
    if not prompt:
        raise Refused("the prompt is empty")
    if len(prompt) >= generation.context:  # one that is too long ends the manager, and so everybody's answers
        sizes = {"n_prompt_tokens": len(prompt), "n_ctx": generation.context}
        raise Refused("the prompt is too long", 400, "exceed_context_size_error", **sizes)
    try:
        return Answer(generation, prompt, asked)
    except (TypeError, ValueError):
        raise Refused("a sampling parameter is of the wrong type") from None


def _prompt(generation: Generation, path: str, asked: dict[str, Any]) -> list[int]:
    tokenizer = generation.tokenizer
    if any(asked.get(name) for name in ("grammar", "json_schema", "response_format")):
        raise Refused("a grammar or a JSON schema can't be kept to by this model")
    if path == "/v1/completions":
        given = asked["prompt"]
        return list(tokenizer.encode(given) if isinstance(given, str) else given)
    if path != "/v1/chat/completions":
        raise Refused("no such path", 404, "not_found_error")
    try:
        text = tokenizer.apply_chat_template(
            asked["messages"], tools=asked.get("tools"), add_generation_prompt=True, tokenize=False
        )
    except Exception as error:
        raise Refused(type(error).__name__, 500, "server_error") from None
    return list(tokenizer.encode(text, add_special_tokens=False))
