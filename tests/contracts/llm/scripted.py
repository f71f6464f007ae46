"""A runtime whose models say what their prompts ask of them, good or bad, in the server's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from maru.engine.errors import InputTooLong, ModelLoadFailed, ModelNotReady, OutOfMemory
from maru.engine.model import Model
from maru.runtimes.generation.catalogue import Description
from maru.runtimes.generation.types import Finished, Part, Piece, Progress, Prompt, TokenLogprob

FORGERY = [
    "a\nevent: done\ndata: {}\n\n",
    "\n",
    "\n\n",
    "data: x",
    ": c",
    "event: error",
    " two",
    "0",
    "null",
    "\ufeff",
]
"""Tokens that would be events of their own, or no token at all, if they were written as they are."""

CANARY = "canary-7f3e"


class Scripted(Model):
    """Its prompts are the names of scripts; any other is said again, word by word."""

    def __init__(self) -> None:
        self.memory_bytes = 1234

    async def stream(self, value: Prompt) -> AsyncIterator[Part]:
        said = value.text if value.text is not None else str((value.messages or [{}])[-1].get("content"))
        name = said.split()[0] if value.tokens is None else ""
        yield Progress(1, 2)
        count = 0
        async for piece in _pieces(name, said, value):
            count += 1
            yield piece
        if name != "unfinished":
            reason = "length" if count == value.sampling.max_tokens else "stop"
            yield Finished(reason, len(said.split()), count, 1, 0.01, 0.02)


async def _pieces(name: str, said: str, prompt: Prompt) -> AsyncIterator[Piece]:
    match name:
        case "forge":
            for text in FORGERY:
                yield Piece(text)
        case "surrogates":
            yield Piece("a\ud800", (TokenLogprob("\udc00", float("-inf"), b"\xff", 3),))
            yield Piece("b", (TokenLogprob("b", float("nan"), b"b", 4),))
        case "forever":
            while True:
                yield Piece("word ")
                await asyncio.sleep(0.005)
        case "flood":
            while True:
                yield Piece("x" * 65536)
                await asyncio.sleep(0)
        case "silent":
            await asyncio.Event().wait()
        case "sampling":
            yield Piece(repr(prompt.sampling))
        case "asked":
            yield Piece(repr((prompt.messages, prompt.tools, prompt.tool_choice, prompt.json_schema)))
        case "call":
            head = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "look", "arguments": ""}}
            yield Piece("", tool_calls=[head])
            for argument in ('{"at"', ': "sky"}'):
                yield Piece("", tool_calls=[{"index": 0, "function": {"arguments": argument}}])
        case "mixed" | "unfinished":
            yield Piece("begun")
            if name == "mixed":
                await _fail(said.split()[1])
        case "broken":
            await _fail(said.split()[1])
        case _:
            words = (word for word in said.split(" ")[: prompt.sampling.max_tokens])
            for index, word in enumerate(words):
                yield Piece(word if index == 0 else " " + word)


async def _fail(how: str) -> None:
    match how:
        case "memory":
            raise OutOfMemory("out of memory")
        case "long":
            raise InputTooLong("the prompt has 9 tokens, and the model's context holds 8")
        case "died":
            raise ModelNotReady("the model's process ended", 1.0)
        case "panic":
            raise RuntimeError(f"nobody is to see this: {CANARY}")


class ScriptedRuntime:
    """Its files are empty, or say what is wrong with them."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def describe(self, path: Path) -> Description:
        said = path.read_text()
        if said.startswith("bad"):
            raise ModelLoadFailed("it is a bad file")
        return Description({"context_length": 512, "architecture": "scripted"}, int(said or 1000))

    def open(self, path: Path) -> Any:
        if path.stem.startswith("unloadable"):
            raise RuntimeError(f"{CANARY} {path}")
        return Scripted()
