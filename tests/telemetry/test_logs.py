from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn

from maru.engine.events import LifecycleChanged, ModelChanged, RequestFinished
from maru.telemetry.http_events import UNMATCHED, HttpStarted
from maru.telemetry.logs import EventLog

from .conftest import Logged
from .samples import REF, finished, request

Configure = Callable[..., Logged]


def test_a_request_is_one_line_with_all_its_fields(logged: Configure) -> None:
    out = logged()
    EventLog().http(HttpStarted("embedding"))
    EventLog().http(finished(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    (line,) = out.lines()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "INFO",
        "event": "request",
        "service": "embedding",
        "route": "/embed",
        "method": "POST",
        "status": 200,
        "error": None,
        "request_id": "req-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "principal": "alice",
        "model": "minilm@1",
        "cache": "miss",
        "items": 1,
        "bytes_out": 4000,
        "queue_ms": 1.0,
        "batch_ms": 2.0,
        "compute_ms": 20.0,
        "total_ms": 25.0,
    }


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_line_is_the_same_however_it_gets_to_the_writer(logged: Configure, format: str) -> None:
    out = logged(format=format)
    for log in (EventLog(), EventLog(out.writer)):
        for status in (200, 404, 503):
            log.http(finished(status=status, principal="\x1b[2J\ud800\nfake line"))
    lines = [re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "", line) for line in out.text().splitlines()]
    assert len(lines) == 6 and lines[:3] == lines[3:]


def test_a_level_that_is_not_wanted_is_not_written(logged: Configure) -> None:
    out = logged(level="WARNING")
    EventLog(out.writer).http(finished())
    EventLog(out.writer).http(finished(status=503))
    assert [line["status"] for line in out.lines()] == [503]


def test_a_request_that_never_came_to_the_engine_has_the_same_fields(logged: Configure) -> None:
    out = logged()
    EventLog().http(finished())
    EventLog().http(finished(route=UNMATCHED, status=404, request=None, model=None, cache=None, method="BREW"))
    full, bare = out.lines()
    assert full.keys() == bare.keys()
    assert (bare["method"], bare["queue_ms"], bare["model"]) == ("OTHER", None, None)


@pytest.mark.parametrize(("status", "level"), [(200, "INFO"), (429, "INFO"), (503, "WARNING"), (500, "ERROR")])
def test_what_went_wrong_is_louder(logged: Configure, status: int, level: str) -> None:
    out = logged()
    EventLog().http(finished(status=status))
    assert [line["level"] for line in out.lines()] == [level]


def test_the_line_document_003_waits_for(logged: Configure) -> None:
    out = logged()
    EventLog().engine(ModelChanged(REF, "loaded", seconds=1.5, memory_bytes=90))
    EventLog().engine(LifecycleChanged("ready"))
    loaded, ready = out.lines()
    assert (loaded["event"], loaded["model"], loaded["seconds"]) == (
        "model_loaded_successfully",
        "minilm@1",
        1.5,
    )
    assert (ready["event"], ready["state"]) == ("lifecycle", "ready")


def test_an_exception_is_told_without_its_message(logged: Configure) -> None:
    out = logged()
    EventLog().engine(RequestFinished(request(), REF, "failed", None, raised()))
    (line,) = out.lines()
    told = line["exception"]
    assert line["event"] == "request_failed"
    assert told["type"] == "builtins.RuntimeError"
    assert told["frames"][-1].startswith("tests.telemetry.test_logs:")
    assert told["frames"][-1].endswith(" raised")
    assert told["cause"]["type"] == "builtins.FileNotFoundError"
    assert told["cause"]["errno"] == "ENOENT"
    assert "canary" not in str(line)


def raised() -> BaseException:
    try:
        try:
            raise FileNotFoundError(errno.ENOENT, "canary", "/canary")
        except OSError as error:
            raise RuntimeError("canary") from error
    except RuntimeError as error:
        return error


def test_a_group_and_an_endless_chain_of_exceptions_are_told_in_short(logged: Configure) -> None:
    first = ValueError("canary")
    first.__cause__ = KeyError("canary")
    first.__cause__.__cause__ = first
    out = logged()
    log = logging.getLogger("maru.test")
    log.error("group", exc_info=BaseExceptionGroup("canary", [raised()] * 100))
    log.error("chain", exc_info=first)
    group, chain = out.lines()
    assert group["exception"]["group"][0]["type"] == "builtins.RuntimeError"
    assert chain["exception"]["cause"]["cause"]["type"] == "builtins.ValueError"
    assert "canary" not in str(group) + str(chain)
    assert len(str(group)) < 5000


def test_an_exception_in_a_message_is_named_by_its_type(logged: Configure) -> None:
    out = logged()
    log = logging.getLogger("maru.test")
    log.warning("failed: %s", ValueError("canary"))
    log.warning("failed: %(why)s", {"why": ValueError("canary")})
    log.warning(ValueError("canary"))
    log.warning("%d of %s", "not a number", 3)
    assert [line["event"] for line in out.lines()] == [
        "failed: ValueError",
        "failed: ValueError",
        "ValueError",
        "%d of %s",
    ]


def test_others_are_heard_when_they_warn(logged: Configure) -> None:
    out = logged(level="debug")
    logging.getLogger("maru.test").debug("ours")
    logging.getLogger("httpx").info("GET https://host/?token=canary")
    logging.getLogger("httpx").warning("theirs")
    assert [line["event"] for line in out.lines()] == ["ours", "theirs"]


def test_the_level_holds(logged: Configure) -> None:
    out = logged(level="WARNING")
    EventLog().http(finished())
    EventLog().http(finished(status=503))
    assert [line["status"] for line in out.lines()] == [503]


def test_a_terminal_gets_text_that_cannot_move_its_cursor(logged: Configure) -> None:
    out = logged(format="text")
    EventLog().http(finished(principal="\x1b[2J\r\u202eevil\nfake line"))
    logging.getLogger("maru.test").error("broken", exc_info=raised())
    request_line, error_line, _ = out.text().split("\n")
    assert "INFO    request service=embedding route=/embed method=POST status=200" in request_line
    assert r"principal=\u001b[2J\u000d\u202eevil\u000afake line" in request_line
    assert "exception=builtins.RuntimeError at tests.telemetry.test_logs:" in error_line
    assert "canary" not in error_line


async def failing(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "http":
        body = (await receive())["body"]
        raise ValueError(f"{scope['path']} {scope['query_string']!r} {scope['headers']} {body!r}")


def test_a_server_that_fails_logs_nothing_of_the_request(logged: Configure) -> None:
    """A real uvicorn, an application that raises with all it was sent, and forgotten tasks."""
    out = logged(level="DEBUG")
    server = uvicorn.Server(uvicorn.Config(failing, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for n in range(10):
            with socket.create_connection(("127.0.0.1", port)) as client:
                body = f'{{"text": "canary-{n}-body"}}'
                client.sendall(
                    f"POST /canary-{n}-path?q=canary-{n}-query HTTP/1.1\r\nhost: canary-{n}-host\r\n"
                    f"authorization: Bearer canary-{n}-token\r\ncontent-length: {len(body)}\r\n"
                    f"connection: close\r\n\r\n{body}".encode()
                )
                with contextlib.suppress(ConnectionError):
                    assert b" 500 " in client.recv(1000)
    finally:
        server.should_exit = True
        thread.join()
    asyncio.run(forget_a_task())
    lines = out.lines()
    text = str(lines)
    assert "canary" not in text
    assert text.count("'type': 'builtins.ValueError'") == 11
    assert any(line["event"].startswith("Uvicorn running on http://127.0.0.1:") for line in lines)
    assert any(line["event"] == "Task exception was never retrieved" for line in lines)


async def forget_a_task() -> None:
    async def fails() -> None:
        raise ValueError("canary-in-a-task")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
    await asyncio.sleep(0)
