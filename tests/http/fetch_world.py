"""The internet that the fetch tests see: a loop that takes what is dialled at a public address to a server
here, a name server, and servers that answer with whatever bytes they are given."""

from __future__ import annotations

import asyncio
import functools
import inspect
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

PUBLIC = "93.184.215.14"


def rerouting(base: type[asyncio.AbstractEventLoop]) -> type[asyncio.AbstractEventLoop]:
    """A loop whose connections to (PUBLIC, port) go to the server named for that port in `routes`. A route
    of None never answers. `dialled` keeps every address a connection was asked for; no others are made."""

    class Rerouting(base):  # type: ignore[valid-type,misc]
        def __init__(self) -> None:
            super().__init__()
            self.routes: dict[int, tuple[str, int] | None] = {}
            self.dialled: list[tuple[str, int]] = []

        async def sock_connect(self, sock: Any, address: Any) -> None:
            self.dialled.append(address[:2])
            assert address[0] == PUBLIC, f"dialled {address}"
            route = self.routes[address[1]]
            if route is None:
                await asyncio.Event().wait()
            await super().sock_connect(sock, route)

    return Rerouting


LOOPS = {"asyncio": rerouting(asyncio.SelectorEventLoop), "uvloop": rerouting(uvloop.Loop)}


def run(main: Coroutine[Any, Any, None], kind: str = "asyncio") -> None:
    """Run `main` on a rerouting loop."""
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main)


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a test of a coroutine function: once on asyncio's own loop and once on uvloop, which serves."""

    @functools.wraps(test)
    def wrapper(loop_kind: str, **arguments: Any) -> None:
        run(test(**arguments), loop_kind)

    signature = inspect.signature(test)
    kind = inspect.Parameter("loop_kind", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(wrapper)["__signature__"] = signature.replace(parameters=[kind, *signature.parameters.values()])
    pytest.mark.parametrize("loop_kind", LOOPS)(wrapper)
    return wrapper


def loop() -> Any:
    return asyncio.get_running_loop()


class Names:
    """A name server on which every name is public, or has the answers given for it, one an inquiry."""

    def __init__(self, answers: dict[str, list[str]] | None = None) -> None:
        self.answers = answers or {}
        self.asked: Counter[str] = Counter()

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked[host] += 1
        answers = self.answers.get(host)
        return [answers.pop(0)] if answers else [PUBLIC]


class Server:
    """Answers each request with the bytes for its path; a callable writes them itself. Keeps the requests."""

    def __init__(self, answers: Mapping[str, bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]]) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        self.sent = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            answer = self.answers[request.split()[1].decode()]
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def serving(server: Server, port: int = 80, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """`server` at PUBLIC:`port`."""
    listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
    loop().routes[port] = listening.sockets[0].getsockname()[:2]
    async with listening:
        yield server


def ok(body: bytes, *headers: str) -> bytes:
    return answer("200 OK", body, f"Content-Length: {len(body)}", *headers)


def answer(status: str, body: bytes, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


def to(location: str, status: str = "302 Found") -> bytes:
    return answer(status, b"", f"Location: {location}", "Content-Length: 0", "Set-Cookie: session=1; Path=/")


async def drip(writer: asyncio.StreamWriter, head: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)
