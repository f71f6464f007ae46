"""A real redis-server, and a proxy in front of it that does what networks and failing servers do."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis


class RedisServer:
    """A redis-server that keeps nothing on disk and is reached by a socket file, so that it needs no port."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="maru-redis-"))
        self.socket = self._folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.admin: Any = redis.Redis(unix_socket_path=str(self.socket))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.admin.close()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.admin.ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class FaultProxy:
    """A TCP way to a server's socket file, on a port of its own, with a fault that may change at any moment.

    `fault` is "" or one of "hole" (takes everything, answers nothing), "slow" (`delay_s` before an answer),
    "reset" (RST on every connection and every byte), "cut" (half of an answer, then the end), "garbage" (an
    answer that is not Redis), "bytes" (answers one byte at a time), "say" (always the reply `line`).
    """

    def __init__(self, upstream: Path) -> None:
        self.fault = ""
        self.delay_s = 0.5
        self.line = b""
        self.connections = 0
        self._upstream = upstream
        self._port = 0
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    async def __aenter__(self) -> FaultProxy:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def close_connections(self) -> None:
        """End every connection as a server does that has had enough of an idle one: with a FIN."""
        for stream in list(self._streams):
            stream.close()

    async def refuse(self) -> None:
        """From now on the port is closed, and so is every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for stream in list(self._streams):
            _reset(stream)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.fault == "reset":
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            _reset(writer)
            return
        self._streams |= {writer, up_writer}
        try:
            await asyncio.gather(self._carry(reader, up_writer, None), self._carry(up_reader, writer, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._streams -= {writer, up_writer}
            writer.close()
            up_writer.close()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter | None
    ) -> None:
        while data := await source.read(65536):
            while self.fault == "hole":
                await asyncio.sleep(0.01)
            if self.fault == "reset":
                for stream in list(self._streams):
                    _reset(stream)
                return
            if client is None:
                sink.write(data)
                continue
            await self._answer(data, sink)
        sink.close()

    async def _answer(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if self.fault == "slow":
            await asyncio.sleep(self.delay_s)
        if self.fault == "bytes":
            for i in range(len(data)):
                sink.write(data[i : i + 1])
                await sink.drain()
        elif self.fault == "cut":
            sink.write(data[: len(data) // 2])
            sink.close()
        elif self.fault == "garbage":
            sink.write(b"HTTP/1.1 400 Bad Request\r\n\r\n\x00\xff*3\r\n$-7\r\n:x\r\n")
        elif self.fault == "say":
            sink.write(self.line)
        else:
            sink.write(data)


def _reset(stream: asyncio.StreamWriter) -> None:
    handle = stream.transport.get_extra_info("socket")
    if handle is not None and handle.family == socket.AF_INET:
        with suppress(OSError):  # closed already
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.transport.abort()
