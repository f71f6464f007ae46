"""The program that safetensors run in, by itself: what it lets in, what it lets out, and when it ends."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_llm import random_folder
from tests.runtimes.generation.asking import run, said
from tests.runtimes.generation.conftest import open_folder

from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.transformers_worker import __main__ as program
from maru.runtimes.generation.types import Piece, Prompt, Sampling
from maru.runtimes.generation.worker import TOO_LARGE, UNREADABLE

KEY = "the-key"
SAID = "what-a-person-wrote"


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return random_folder(folder / "long", seed=7, context=8192)


@pytest.fixture(scope="module")
def single(path: Path) -> Iterator[GenerationModel]:
    """One slot, in which an answer takes many seconds unless its reader leaves."""
    with open_folder(path, slots=1, context=8192) as model:
        yield model


def told(name: str, request: bytes) -> bytes:
    """The whole of what is answered to these bytes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(name)
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def asked(body: bytes, key: str = KEY, path: str = "/v1/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    return head.encode("latin-1") + b"Content-Length: %d\r\n\r\n" % len(body) + body


def inodes(pid: int) -> set[str]:
    names = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {name.removeprefix("socket:[").removesuffix("]") for name in names if name.startswith("socket:")}


def test_it_answers_those_who_have_its_key_on_its_socket_alone(single: GenerationModel) -> None:
    name, pid = single._worker.socket, single._worker._process.pid
    for key in ("", "wrong", "ké"):
        assert told(name, asked(b"{}", key)).startswith(b"HTTP/1.1 401 ")
    assert told(name, asked(b"{}", single._worker.key, "/other")).startswith(b"HTTP/1.1 404 ")
    assert told(name, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    listed = "".join(Path(f"/proc/{pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6")).splitlines()
    assert inodes(pid) and not inodes(pid) & {line.split()[9] for line in listed}


def test_it_leaves_no_core_behind(single: GenerationModel) -> None:
    limits = Path(f"/proc/{single._worker._process.pid}/limits").read_text().splitlines()
    assert [line.split()[4:6] for line in limits if line.startswith("Max core")] == [["0", "0"]]


def test_readers_who_leave_while_they_wait_or_are_answered_make_room(single: GenerationModel) -> None:
    endless = Prompt(text="Hi", sampling=Sampling(temperature=0.0, ignore_eos=True))

    async def first(prompt: Prompt, kind: type) -> None:
        async with aclosing(single.stream(prompt)) as stream:  # type: ignore[type-var]
            async for part in stream:
                if isinstance(part, kind):
                    return

    async def main() -> float:
        async with aclosing(single.stream(endless)) as answered:  # type: ignore[type-var]
            async for part in answered:
                if isinstance(part, Piece):
                    break
            waiting = [asyncio.create_task(first(endless, Piece)) for _ in range(3)]
            await first(endless, object)  # its progress: it waits, and so do those who came before
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        left = time.monotonic()
        await said(single, Prompt(text="a", sampling=Sampling(max_tokens=1)))
        return time.monotonic() - left

    assert run(main()) < 1.0


def test_one_who_does_not_read_and_leaves_makes_room(single: GenerationModel) -> None:
    body = {"prompt": "Hi", "ignore_eos": True, "logprobs": 20}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(single._worker.socket)
        connection.sendall(asked(json.dumps(body).encode(), single._worker.key))
        before, held = -1, 0
        while held != before or not held:  # until it can send no more
            time.sleep(0.3)
            before, held = held, int.from_bytes(fcntl.ioctl(connection, termios.FIONREAD, bytes(4)), sys.byteorder)
    left = time.monotonic()
    run(said(single, Prompt(text="a", sampling=Sampling(max_tokens=1))))
    assert held > 1 << 16 and time.monotonic() - left < 1.0


# By itself, with what it prints in sight


@contextmanager
def started(tmp_path: Path, model: Path, **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    python = os.environ["MARU_REFERENCE_PYTHON"]
    name = str(tmp_path / "own" / "s.sock")
    Path(name).parent.mkdir()
    given = {"path": str(model), "slots": 1, "context": 256, "batch": 256, "threads": 1, **options}
    process = subprocess.Popen(
        [python, "-I", program.__file__, name, json.dumps(given)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"LLAMA_API_KEY": KEY},
    )  # fmt: skip
    try:
        yield process, name
    finally:
        process.kill()
        process.communicate()


def test_it_prints_nothing_of_what_people_write_and_ends_with_its_parents_pipe(tmp_path: Path, path: Path) -> None:
    bodies = [
        {"prompt": SAID, "max_tokens": 3},
        {"prompt": SAID, "max_tokens": SAID},
        {"prompt": SAID, "stop": 5},
        {"prompt": [SAID]},
        {"prompt": None, "grammar": SAID},
        {"prompt": 5},
        {SAID: SAID},
        [SAID],
    ]
    with started(tmp_path, path) as (process, name):
        until = time.monotonic() + 120
        while not Path(name).exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        assert b"data: [DONE]" in told(name, asked(json.dumps(bodies[0]).encode()))
        for body in bodies[1:]:
            assert b"[DONE]" not in told(name, asked(json.dumps(body).encode()))
        chat = {"messages": [{"role": SAID}], "tools": SAID}
        assert told(name, asked(json.dumps(chat).encode(), path="/v1/chat/completions"))
        for request in (
            asked(SAID.encode()),
            asked(b"{}", SAID),
            asked(b"{}", path=f"/{SAID}"),
            f"{SAID}\r\n\r\n".encode(),
        ):
            told(name, request)
        assert b"data: [DONE]" in told(name, asked(json.dumps(bodies[0]).encode())), "none of these ended it"
        printed, _ = process.communicate(timeout=20)  # closes the pipe
    assert process.returncode == 0 and not Path(name).parent.exists()
    assert SAID.encode() not in printed and b"HTTP" not in printed and b"Traceback" not in printed


@pytest.mark.parametrize(
    ("spoil", "code"), [({"path": "/no/such/folder"}, UNREADABLE), ({"slots": 1 << 30}, TOO_LARGE)]
)
def test_why_a_model_could_not_be_loaded(tmp_path: Path, path: Path, spoil: dict[str, Any], code: int) -> None:
    with started(tmp_path, path, **spoil) as (process, _):
        assert process.wait(120) == code


WATCHED = """
    import sys, threading, time
    from types import SimpleNamespace
    from maru.runtimes.generation.transformers_worker.__main__ import watch

    class Manager:
        current_batch = 0
        background_thread_status = SimpleNamespace(fatal_error=None)
        _generation_thread = threading.Thread(target=time.sleep, args=(600,), daemon=True)

    manager, busy = Manager(), True
    manager._generation_thread.start()
    threading.Thread(target=watch, args=(manager, lambda: busy, 0.5), daemon=True).start()
    {happening}
    sys.exit(0)
"""


@pytest.mark.parametrize(
    ("happening", "code"),
    [
        ("manager._generation_thread = threading.Thread(); time.sleep(20)", 1),
        ("manager.background_thread_status.fatal_error = ValueError(); time.sleep(20)", 1),
        ("time.sleep(20)", 1),
        ("busy = False; time.sleep(2)", 0),
        ("[(time.sleep(0.1), setattr(manager, 'current_batch', n)) for n in range(20)]", 0),
    ],
)
def test_it_ends_when_its_manager_has_ended_or_stalled(happening: str, code: int) -> None:
    script = textwrap.dedent(WATCHED).replace("{happening}", happening)
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == code
