from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from maru.http.disconnect import ClientGone, Departure, unless_gone
from maru.http.problem import Problem

from .live import Loop, Workshop, replies, reset, served, until

LOOPS: tuple[Loop, ...] = ("uvloop", "asyncio")


class Client:
    """The receiving side of a request whose body was read: nothing, until it leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.error: Exception | None = None

    async def receive(self) -> Message:
        await self.left.wait()
        if self.error is not None:
            raise self.error
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self.left.set()


def run(test: Callable[[Client], Awaitable[Any]]) -> Any:
    """Run a test, which must leave no task and no pending cancellation behind."""

    async def main() -> Any:
        client = Client()
        result = await asyncio.wait_for(test(client), 5)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()
        return result

    return asyncio.run(main())


def test_returns_what_the_work_returns() -> None:
    async def test(client: Client) -> str:
        async def work() -> str:
            await asyncio.sleep(0.01)
            return "done"

        return await unless_gone(client.receive, work())

    assert run(test) == "done"


def test_work_that_never_waits_is_not_disturbed() -> None:
    async def test(client: Client) -> str:
        async def work() -> str:
            return "done"

        client.leave()
        return await unless_gone(client.receive, work())

    assert run(test) == "done"


def test_raises_what_the_work_raises() -> None:
    async def test(client: Client) -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise KeyError("broken")

        with pytest.raises(KeyError):
            await unless_gone(client.receive, work())

    run(test)


def test_a_timeout_of_the_work_is_not_a_disconnect() -> None:
    async def test(client: Client) -> None:
        async def work() -> None:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(5)

        with pytest.raises(TimeoutError):
            await unless_gone(client.receive, work())

    run(test)


def test_cancels_the_work_when_the_client_leaves() -> None:
    async def test(client: Client) -> None:
        freed = False

        async def work() -> None:
            nonlocal freed
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.01)
                freed = True

        asyncio.get_running_loop().call_later(0.02, client.leave)
        with pytest.raises(ClientGone):
            await unless_gone(client.receive, work())
        assert freed, "it was left before its work had cleaned up"

    run(test)


def test_work_that_fails_on_being_cancelled_is_still_a_disconnect() -> None:
    async def test(client: Client) -> None:
        async def work() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                raise KeyError("while cleaning up")

        client.leave()
        with pytest.raises(ClientGone):
            await unless_gone(client.receive, work())

    run(test)


def test_outer_cancellation_passes_through() -> None:
    async def test(client: Client) -> None:
        async def request() -> None:
            await unless_gone(client.receive, asyncio.sleep(30))

        task = asyncio.create_task(request())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(test)


def test_outer_cancellation_wins_over_a_disconnect_at_the_same_moment() -> None:
    async def test(client: Client) -> None:
        async def request() -> None:
            await unless_gone(client.receive, asyncio.sleep(30))

        for order in (0, 1):
            client.left.clear()
            task = asyncio.create_task(request())
            await asyncio.sleep(0.01)
            if order:
                task.cancel()
            client.leave()
            # The watcher sees it, then its timeout expires, in the two rounds of the loop that follow.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(test)


def test_an_outer_deadline_stays_an_outer_deadline() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await unless_gone(client.receive, asyncio.sleep(30))

    run(test)


def test_what_receive_raises_ends_the_work_and_is_raised() -> None:
    async def test(client: Client) -> None:
        client.error = Problem(408, "REQUEST_TIMEOUT", "too slow")
        asyncio.get_running_loop().call_later(0.01, client.leave)
        with pytest.raises(Problem):
            await unless_gone(client.receive, asyncio.sleep(30))

    run(test)


def test_drops_what_is_left_of_a_body() -> None:
    async def test(client: Client) -> None:
        messages: list[Message] = [
            {"type": "http.request", "body": b"x", "more_body": True},
            {"type": "http.request", "body": b"x", "more_body": False},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Message:
            return messages.pop(0)

        with pytest.raises(ClientGone):
            await unless_gone(receive, asyncio.sleep(30))

    run(test)


POST = b"POST /slow?s=30 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
GET = b"GET /slow?s=30 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("said", [GET, POST, POST + GET], ids=["get", "post", "pipelined"])
def test_a_client_that_leaves_frees_its_slot(loop: Loop, leave: Callable[[Any], None], said: bytes) -> None:
    with served(loop=loop) as live:
        peers = [live.connect() for _ in range(20)]
        for peer in peers:
            peer.sendall(said)
        until(lambda: live.workshop.slots == 20)
        for peer in peers:
            leave(peer)
        assert until(lambda: live.workshop.slots == 0) < 1
        until(lambda: live.connections() == 0)
        assert live.workshop.ran == 20, "a request was started for a client that had left"


def test_a_client_that_leaves_in_the_middle_of_its_body_starts_nothing() -> None:
    with served() as live:
        for leave in (socket.socket.close, reset):
            peer = live.connect()
            peer.sendall(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
            until(lambda: live.workshop.requests > 0)
            leave(peer)
            until(lambda: not live.server.server_state.tasks)
            live.workshop.requests = 0
        assert live.workshop.ran == 0


def test_without_the_watcher_the_slot_stays_taken() -> None:
    """What the tests above would see if the watcher did nothing."""
    with served(Workshop(watched=False)) as live:
        peer = live.connect()
        peer.sendall(GET.replace(b"s=30", b"s=1"))
        until(lambda: live.workshop.slots == 1)
        peer.close()
        until(lambda: live.connections() == 0)
        with pytest.raises(AssertionError):
            until(lambda: live.workshop.slots == 0, within_s=0.5)


@pytest.mark.parametrize("loop", LOOPS)
def test_requests_on_one_connection_are_each_answered(loop: Loop) -> None:
    """A request behind another, on a kept connection, is neither a disconnect nor lost."""
    with served(loop=loop) as live, live.connect() as peer:
        quick = b"GET /slow?s=0.05 HTTP/1.1\r\nHost: a\r\n\r\n"
        peer.sendall(quick + quick)
        peer.sendall(quick)
        until(lambda: live.workshop.ran == 1)
        peer.sendall(b"POST /slow?s=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{")
        until(lambda: live.workshop.ran == 3)
        peer.sendall(b"  }" + quick.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        data = bytearray()
        while chunk := peer.recv(4096):
            data += chunk
        assert [reply.status for reply in replies(bytes(data))] == [200] * 5
        assert live.workshop.ran == 5


def test_a_departure_cancels_the_work_and_needs_no_task() -> None:
    async def scenario() -> None:
        departure = Departure()
        departure.told = True
        tasks = len(asyncio.all_tasks())
        asyncio.get_running_loop().call_later(0.01, departure.happen)
        with pytest.raises(ClientGone):
            await unless_gone(never, forever(), departure)
        with pytest.raises(ClientGone):  # it had left before anybody watched
            await unless_gone(never, forever(), departure)
        assert len(asyncio.all_tasks()) == tasks

    async def never() -> Message:
        raise AssertionError("nobody reads")

    async def forever() -> None:
        await asyncio.sleep(60)

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_a_departure_after_the_work_changes_nothing() -> None:
    async def scenario() -> None:
        departure = Departure()
        departure.told = True

        async def never() -> Message:
            raise AssertionError("nobody reads")

        async def work() -> int:
            return 7

        assert await unless_gone(never, work(), departure) == 7
        departure.happen()
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), 5))
