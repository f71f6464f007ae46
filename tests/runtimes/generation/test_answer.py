"""What llama.cpp's events mean."""

from __future__ import annotations

from typing import Any

from maru.runtimes.generation.answer import Answer
from maru.runtimes.generation.types import Finished, Piece, Progress

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
TIMINGS = {"prompt_ms": 20.0, "predicted_ms": 1500.0}


def chat(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_calls_of_tools_come_as_they_are_and_are_the_reason_of_the_end() -> None:
    answer = Answer(None)
    call = [{"index": 0, "id": "1", "type": "function", "function": {"name": "sum", "arguments": "{"}}]
    more = [{"index": 0, "function": {"arguments": '"a":1}'}}]
    events = [chat(role="assistant", content=None), chat(tool_calls=call), chat(tool_calls=more), chat("tool_calls")]
    parts = [part for event in events for part in answer.parts(event)]
    assert parts == [Piece("", tool_calls=call), Piece("", tool_calls=more)]
    assert not list(answer.parts({"choices": [], "usage": USAGE, "timings": TIMINGS}))
    assert answer.finished() == Finished("tool_calls", 5, 3, 4, 0.02, 1.5)


def test_what_says_nothing_is_no_part() -> None:
    answer = Answer(None)
    assert not list(answer.parts(chat(role="assistant", content=None)))
    assert not list(answer.parts({"choices": [{"text": "", "logprobs": None, "finish_reason": None}]}))
    reading = {"choices": [{"text": ""} | {"finish_reason": None}], "prompt_progress": {"processed": 3, "total": 9}}
    assert list(answer.parts(reading)) == [Progress(3, 9)]


def test_a_reason_that_is_new_is_taken_for_a_stop() -> None:
    answer = Answer(None)
    for event in (chat(content="a"), chat("content_filter"), {"choices": [], "usage": USAGE}):
        list(answer.parts(event))
    assert answer.finished() == Finished("stop", 5, 3, 4, 0.0, 0.0)
