"""Against servers on real sockets, good and bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from maru.runtimes.generation.types import Finished, Part, Piece, Prompt, Sampling
from maru.services.llm.benchmarks.load import SourceError
from maru.services.llm.benchmarks.openai_source import OpenAISource

Answer = Callable[[web.Request, web.StreamResponse], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(
    answer: Answer, status: int = 200, unknown: str = ""
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server whose streams `answer` writes; its URL, and the bodies that it was sent."""
    bodies: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append({"path": request.path, "key": request.headers.get("Authorization"), **await request.json()})
        if status != 200 or unknown in bodies[-1]:
            return web.json_response({"error": {"message": "no"}}, status=status if status != 200 else 422)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await answer(request, response)
        return response

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "one"}, {"id": "two"}]})

    app = web.Application()
    app.router.add_post("/v1/completions", handle)
    app.router.add_post("/v1/chat/completions", handle)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield f"http://127.0.0.1:{port}", bodies
    finally:
        await runner.cleanup()


def chunk(text: str | None = None, **more: Any) -> bytes:
    choice: dict[str, Any] = {"index": 0, "text": text or "", "finish_reason": more.pop("reason", None)}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
TIMINGS = {"prompt_ms": 500.0, "predicted_ms": 250.0}


def ask(answer: Answer, prompt: Prompt | None = None, status: int = 200, **options: Any) -> tuple[list[Part], Any, Any]:
    """The parts of one answer, the request as it came, and the source."""

    async def within() -> tuple[list[Part], Any, Any]:
        async with (
            serving(answer, status) as (url, bodies),
            OpenAISource(url, "m", **options) as source,
            source.stream(prompt or Prompt(text="a")) as parts,
        ):
            return [part async for part in parts], bodies[0], source

    return asyncio.run(asyncio.wait_for(within(), 20))


async def good(request: web.Request, response: web.StreamResponse) -> None:
    await response.write(b": comment\n\n" + chunk("a") + chunk("") + chunk(" b"))
    await response.write(chunk(reason="length") + chunk(usage=USAGE, timings=TIMINGS) + b"data: [DONE]\n\n")


def test_a_completion() -> None:
    prompt = Prompt(text="go on", sampling=Sampling(max_tokens=3, temperature=0.0, seed=5, stop=("x",)))
    parts, sent, source = ask(good, prompt, key="secret")
    assert parts == [Piece("a"), Piece(" b"), Finished("length", 7, 3, 2, 0.5, 0.25)]
    assert (sent["path"], sent["key"], sent["model"], sent["prompt"]) == (
        "/v1/completions",
        "Bearer secret",
        "m",
        "go on",
    )
    assert (sent["max_tokens"], sent["temperature"], sent["seed"], sent["stop"]) == (3, 0.0, 5, ["x"])
    assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}
    assert not {"ignore_eos", "cache_prompt"} & set(sent), "OpenAI's own server refuses what it has not"
    assert not source.counted_by_pieces


def test_a_chat_and_what_only_some_servers_have() -> None:
    prompt = Prompt(
        messages=[{"role": "user", "content": "hi"}], sampling=Sampling(max_tokens=9, ignore_eos=True), reuse=False
    )

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        delta = {"choices": [{"delta": {"role": "assistant", "content": None}}]}
        said = {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}], "usage": USAGE}
        await response.write(b"".join(b"data:" + json.dumps(each).encode() + b"\r\n\r\n" for each in (delta, said)))

    parts, sent, _ = ask(answer, prompt)
    assert parts[0] == Piece("hi") and isinstance(parts[-1], Finished) and parts[-1].reason == "stop"
    assert sent["path"] == "/v1/chat/completions" and sent["messages"] == [{"role": "user", "content": "hi"}]
    assert (sent["ignore_eos"], sent["cache_prompt"]) == (True, False)


def test_a_server_that_knows_no_cache_prompt_is_asked_without_it() -> None:
    async def within() -> list[dict[str, Any]]:
        async with serving(good, unknown="cache_prompt") as (url, bodies), OpenAISource(url, "m") as source:
            for _ in range(2):
                async with source.stream(Prompt(text="a", reuse=False)) as parts:
                    assert len([part async for part in parts]) == 3
            return bodies

    assert ["cache_prompt" in body for body in asyncio.run(within())] == [True, False, False]


def test_events_may_come_in_any_pieces() -> None:
    whole = chunk("한글 🙂") + chunk("x" * 200_000) + chunk(reason="stop", usage=USAGE)

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        for start in range(0, 60, 1):
            await response.write(whole[start : start + 1])
        await response.write(whole[60:])

    parts, _, _ = ask(answer)
    assert [part.text for part in parts if isinstance(part, Piece)] == ["한글 🙂", "x" * 200_000]


def test_a_server_that_does_not_count_has_its_pieces_counted() -> None:
    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(chunk("a") + chunk("b") + chunk(reason="stop") + b"data: [DONE]\n\n")

    parts, _, source = ask(answer)
    assert parts[-1] == Finished("stop", 0, 2, 0, 0.0, 0.0) and source.counted_by_pieces


def test_an_answer_that_breaks_off_has_no_end() -> None:
    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(chunk("a"))

    parts, _, _ = ask(answer)
    assert parts == [Piece("a")]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"data: {nonsense\n\n", "not_json"),
        (b'data: {"error": {"message": "secret"}}\n\n', "error_event"),
        (b"data: 7\n\n", "error_event"),
    ],
)
def test_what_is_no_answer(written: bytes, said: str) -> None:
    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(written)

    with pytest.raises(SourceError, match=said):
        ask(answer)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusal_is_told_by_its_status(status: int) -> None:
    with pytest.raises(SourceError, match=f"^http_{status}$"):
        ask(good, status=status)


def test_a_connection_that_is_cut_and_one_that_can_not_be_made() -> None:
    async def cut(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(chunk("a"))
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(0.1)

    with pytest.raises(SourceError, match="broken_connection"):
        ask(cut)

    async def nowhere() -> None:
        async with OpenAISource("http://127.0.0.1:9", "m") as source, source.stream(Prompt(text="a")):
            pass

    with pytest.raises(SourceError, match="no_connection"):
        asyncio.run(nowhere())


def test_one_that_takes_too_long() -> None:
    async def silent(request: web.Request, response: web.StreamResponse) -> None:
        await asyncio.sleep(5)

    with pytest.raises(SourceError, match="timeout"):
        ask(silent, timeout_s=0.2)


def test_leaving_early_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request, response: web.StreamResponse) -> None:
        try:
            while True:
                await response.write(chunk("a"))
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async def within() -> None:
        async with serving(endless) as (url, _), OpenAISource(url, "m") as source:
            async with source.stream(Prompt(text="a")) as parts:
                async for _ in parts:
                    break
            async with asyncio.timeout(5):
                await gone.wait()

    asyncio.run(asyncio.wait_for(within(), 20))


def test_what_it_has_to_offer() -> None:
    async def within() -> list[str]:
        async with serving(good) as (url, _), OpenAISource(f"{url}/v1/", "m") as source:
            return await source.models()

    assert asyncio.run(within()) == ["one", "two"]
