"""Taking connections, as many as there are."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

_AT_ONCE = 256
"""How many are taken before those that were taken are heard."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REST_S = 0.1
"""How long nothing is taken when the process or the machine can hold no more."""


class Listener:
    """Takes the connections of a listening socket, on the event loop, until it is closed.

    uvloop's own server takes one in each turn of the loop. Where every turn answers some hundred requests, the last of
    a burst of 256 new connections waited for five seconds, beside neighbours that were answered in 0.1 (measured).
    """

    def __init__(self, sock: socket.socket, made: Callable[[], asyncio.Protocol], backlog: int) -> None:
        """`made` makes the protocol of one connection. The socket stays its owner's."""
        self._sock = sock
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._taken: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        self._loop.add_reader(sock, self._take)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("no more connections can be taken: %s", errno.errorcode[error.errno or 0])
                self._loop.remove_reader(self._sock)
                self._resting = self._loop.call_later(_REST_S, self._loop.add_reader, self._sock, self._take)
                return
            task = self._loop.create_task(self._connect(client))
            self._taken.add(task)
            task.add_done_callback(self._taken.discard)

    async def _connect(self, client: socket.socket) -> None:
        try:
            client.setblocking(False)
            if client.family in (socket.AF_INET, socket.AF_INET6):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._made, client)
        except OSError:  # it has left already
            client.close()

    async def close(self) -> None:
        """Take no more. Done when those that were taken are connected."""
        self._loop.remove_reader(self._sock)
        if self._resting is not None:
            self._resting.cancel()
        if self._taken:
            await asyncio.wait(self._taken)
