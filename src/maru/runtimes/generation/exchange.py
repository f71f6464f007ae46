"""One request to a worker and the events of its answer, over its socket.

Written by hand, because it is on the way of every token: a general HTTP client takes up to twice the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: worker\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    "Connection: close\r\nContent-Length: {length}\r\n\r\n"
)
_EVENT, _DONE, _ERROR = b"data: {", b"data: [DONE]", b"error: {"


class Rejected(Exception):
    """The worker did not take the request, or gave it up (`status` is 200 then).

    `kind` is llama.cpp's name of the reason; `fields` are all it said.
    """

    def __init__(self, status: int, fields: dict[str, Any]) -> None:
        super().__init__(f"{status} {fields.get('type', '')}")
        self.status = status
        self.kind = str(fields.get("type", ""))
        self.fields = fields


class Broken(Exception):
    """The answer ended before its end, or never began."""


async def exchange(socket: str, key: str, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """The answer's events as they come, or the one object that the answer is.

    Closing the iterator closes the connection, which stops the work.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise Broken from error
    try:
        content = orjson.dumps(body)
        writer.write(_HEAD.format(path=path, key=key, length=len(content)).encode() + content)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status != 200:
            raise Rejected(status, _said(await reader.read()))
        if b"chunked" not in head.lower():
            yield orjson.loads(await reader.read())
            return
        rest = b""
        while size := int(await reader.readline(), 16):
            rest += (await reader.readexactly(size + 2))[:-2]
            *events, rest = rest.split(b"\n\n")
            for event in events:
                if event.startswith(_EVENT):
                    fields = orjson.loads(event[6:])
                    if "error" in fields:
                        raise Rejected(200, _said(event[6:]))
                    yield fields
                elif event.startswith(_DONE):
                    return
                elif event.startswith(_ERROR):
                    raise Rejected(200, _said(b'{"error":' + event[7:] + b"}"))
        raise Broken
    except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise Broken from error
    finally:
        writer.transport.abort()


def _said(content: bytes) -> dict[str, Any]:
    try:
        error = orjson.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
