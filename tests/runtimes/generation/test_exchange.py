"""The client of workers, against a server on a socket that says what a test has it say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.runtimes.generation.asking import run

from maru.engine.errors import InputError, ModelFailed
from maru.runtimes.generation.exchange import Broken, Rejected, exchange
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.types import Prompt

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunks(*parts: bytes, end: bool = True) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if end else b"")


@dataclass
class Server:
    """Answers every request with `says`, `size` bytes at a time. `asked` are the requests, `left` that a client has
    closed the connection."""

    folder: Path
    says: bytes
    size: int = 1 << 20
    stays: bool = False
    asked: list[bytes] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def socket(self) -> str:
        return str(self.folder / "s.sock")

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.asked.append(head + await reader.readexactly(length))
        for start in range(0, len(self.says), self.size):
            writer.write(self.says[start : start + self.size])
            await asyncio.sleep(0)
        if self.stays:
            await reader.read()
            self.left.set()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        async with await asyncio.start_unix_server(self._handle, self.socket):
            yield self

    async def all(self) -> list[dict[str, Any]]:
        return [event async for event in exchange(self.socket, "key", "/path", {"a": "é"})]


def answer(folder: Path, says: bytes, size: int = 1 << 20) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        async with Server(folder, says, size).running() as server:
            return await server.all()

    return run(main())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    "parts",
    [
        [b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', DONE],
        [b'data: {"n": 1}\n\ndata: {"n": 2}\n\n' + DONE],
        [b"da", b'ta: {"n"', b": 1}\n", b'\ndata: {"n": 2}', b"\n\n", DONE],
        [b":\n\n", b'data: {"n": 1}\n\n', b": ping\n\n", b'data: {"n": 2}\n\n', DONE],
    ],
)
def test_events_come_as_they_were_meant_however_they_were_cut(tmp_path: Path, parts: list[bytes], size: int) -> None:
    assert answer(tmp_path, STREAM + chunks(*parts), size) == [{"n": 1}, {"n": 2}]


def test_an_event_larger_than_any_buffer_comes_whole(tmp_path: Path) -> None:
    event = b'data: {"n": "' + b"x" * 1_000_000 + b'"}\n\n'
    (got,) = answer(tmp_path, STREAM + chunks(event, DONE))
    assert len(got["n"]) == 1_000_000


def test_one_object_may_be_the_whole_answer(tmp_path: Path) -> None:
    assert answer(tmp_path, b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"n": 1}') == [{"n": 1}]


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"nonsense",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 OK 200\r\n\r\n",
        STREAM,
        STREAM + b"zz\r\n",
        STREAM + b"ff\r\nshort",
        STREAM + chunks(b'data: {"n": 1}\n\n', end=False),
        STREAM + chunks(b'data: {"n": 1}\n\n'),
        STREAM + chunks(b"data: {broken\n\n", DONE),
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    ],
)
def test_an_answer_that_is_not_whole_is_broken_and_never_taken_for_an_end(tmp_path: Path, says: bytes) -> None:
    with pytest.raises(Broken):
        answer(tmp_path, says)


def test_a_socket_that_nobody_listens_on_is_broken(tmp_path: Path) -> None:
    with pytest.raises(Broken):
        run(Server(tmp_path, b"").all())


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"error": 7}'])
def test_a_refusal_needs_no_reason(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        answer(tmp_path, b"HTTP/1.1 503 No\r\n\r\n" + content)
    assert (refused.value.status, refused.value.kind) == (503, "")


@pytest.mark.parametrize("form", [b"error: %s\n\n", b'data: {"error": %s}\n\n'])
def test_an_error_within_an_answer_ends_it(tmp_path: Path, form: bytes) -> None:
    event = form % b'{"code": 500, "type": "server_error", "message": "of the secret text"}'
    with pytest.raises(Rejected) as refused:
        answer(tmp_path, STREAM + chunks(b'data: {"n": 1}\n\n', event))
    assert (refused.value.status, refused.value.kind) == (200, "server_error")
    assert "secret" not in str(refused.value)


def test_the_request_bears_the_key_and_is_read_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with Server(tmp_path, STREAM + chunks(DONE)).running() as server:
            await server.all()
            (asked,) = server.asked
            assert asked.startswith(b"POST /path HTTP/1.1\r\n") and b"Authorization: Bearer key\r\n" in asked
            assert asked.endswith('\r\n\r\n{"a":"é"}'.encode())

    run(main())


def test_leaving_closes_the_connection_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        says = STREAM + chunks(b'data: {"n": 1}\n\n', end=False)
        async with Server(tmp_path, says, stays=True).running() as server:
            async with aclosing(exchange(server.socket, "key", "/", {})) as events:
                await anext(events)
            async with asyncio.timeout(5):
                await server.left.wait()

    run(main())


class Alive:
    """As much of a worker as a model asks for."""

    key = "key"

    def __init__(self, server: Server) -> None:
        self.socket = server.socket

    def alive(self) -> bool:
        return True


def error_of(folder: Path, says: bytes, prompt: Prompt) -> Exception:
    async def main() -> Exception:
        async with Server(folder, says).running() as server:
            model = GenerationModel(Alive(server), {})  # type: ignore[arg-type]
            with pytest.raises(Exception) as raised:
                async for _ in model.stream(prompt):
                    pass
            return raised.value

    return run(main())


CHAT = Prompt(messages=[{"role": "user", "content": "a secret"}])
SAID = b'{"error": {"code": %d, "type": "server_error", "message": "a secret"}}'


@pytest.mark.parametrize(
    ("says", "prompt", "kind"),
    [
        (b"HTTP/1.1 400 No\r\n\r\n" + SAID % 400, Prompt(text="a"), InputError),
        (b"HTTP/1.1 500 No\r\n\r\n" + SAID % 500, CHAT, InputError),
        (b"HTTP/1.1 500 No\r\n\r\n" + SAID % 500, Prompt(text="a"), ModelFailed),
        (b"HTTP/1.1 401 No\r\n\r\n" + SAID % 401, Prompt(text="a"), ModelFailed),
        (STREAM + chunks(b"data: " + SAID % 500 + b"\n\n"), CHAT, ModelFailed),
        (STREAM, Prompt(text="a"), ModelFailed),
    ],
)
def test_what_a_worker_says_of_a_prompt_is_never_repeated(
    tmp_path: Path, says: bytes, prompt: Prompt, kind: type[Exception]
) -> None:
    error = error_of(tmp_path, says, prompt)
    assert type(error) is kind and "secret" not in str(error)
    assert error.__cause__ is None and error.__suppress_context__
