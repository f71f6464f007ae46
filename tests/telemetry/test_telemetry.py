from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from maru.engine.engine import Engine
from maru.engine.errors import EngineError
from maru.engine.model import Model, ModelSpec
from maru.engine.types import ModelRef, Request
from maru.telemetry.http_events import HttpStarted
from maru.telemetry.telemetry import Telemetry

from .conftest import Logged
from .samples import EMBED, finished


class Upper(Model):
    def predict(self, batch: Sequence[Any]) -> Sequence[Any]:
        if "bad" in batch:
            raise ValueError("canary: " + batch[0])
        return [value.upper() for value in batch]


class Plain:
    def encode(self, output: Any) -> bytes:
        return str(output).encode()

    def decode(self, data: bytes) -> Any:
        return data.decode()


async def use_the_engine(telemetry: Telemetry) -> None:
    engine = Engine()
    engine.events.subscribe(telemetry.engine)
    spec = ModelSpec(ModelRef("upper", "3", "d"), Upper, codec=Plain())
    engine.repository.add(spec)
    await engine.manager.load(spec)
    engine.lifecycle.advance("ready")
    for word in ("a", "a", "bad"):
        asked = Request("upper", [word], time.monotonic() + 10, keys=[word.encode()], id=f"req-{word}")
        telemetry.http(HttpStarted("embedding"))
        try:
            answer = await engine.infer(asked)
        except EngineError:
            telemetry.http(finished(request=asked, status=500, model=None, cache=None))
        else:
            telemetry.http(finished(request=asked, model=answer.ref, cache=answer.cache))
    await engine.drain(1.0)
    await engine.close()


def test_what_the_engine_does_is_counted_and_logged(logged: Callable[..., Logged]) -> None:
    out = logged()
    with Telemetry("0.1.0", [EMBED], writer=out.writer) as telemetry:
        asyncio.run(use_the_engine(telemetry))
    text = telemetry.metrics.render(None)[0].decode()
    for line in (
        'maru_requests_total{model="upper",outcome="ok",version="3"} 2.0',
        'maru_requests_total{model="upper",outcome="failed",version="3"} 1.0',
        'maru_cache_lookups_total{model="upper",result="hit",version="3"} 1.0',
        'maru_batch_size_items_count{model="upper",version="3"} 2.0',
        'maru_batches_failed_total{model="upper",version="3"} 1.0',
        'maru_model_loaded{model="upper",version="3"} 0.0',
        'maru_lifecycle_state{maru_lifecycle_state="stopped"} 1.0',
        'embed_requests_total{endpoint="/embed",status="200"} 2.0',
        'embed_errors_total{endpoint="/embed",error="internal"} 1.0',
        "maru_log_lines_dropped_total 0.0",
        "maru_host_memory_available_bytes ",
    ):
        assert line in text
    lines = out.lines()
    assert [line["event"] for line in lines] == [
        "model_loading",
        "model_loaded_successfully",
        "lifecycle",
        "request",
        "request",
        "request_failed",
        "request",
        "lifecycle",
        "model_unloaded",
        "lifecycle",
    ]
    assert [line["cache"] for line in lines if line["event"] == "request"] == ["miss", "hit", None]
    failure = lines[5]
    assert (failure["request_id"], failure["model"]) == ("req-bad", "upper@3")
    assert "canary" not in text + str(lines)


def test_secrets_in_every_field_come_out_nowhere(logged: Callable[..., Logged]) -> None:
    """What a caller sends is in the engine's request and in exceptions; none of it may be told."""
    out = logged(level="DEBUG")
    telemetry = Telemetry("0.1.0", [EMBED], writer=out.writer)

    class Leaky(Model):
        def predict(self, batch: Sequence[Any]) -> Sequence[Any]:
            raise RuntimeError(f"canary-raised {batch}") from KeyError("canary-cause")

    async def ask() -> None:
        engine = Engine()
        engine.events.subscribe(telemetry.engine)
        spec = ModelSpec(ModelRef("leaky", "1", "d"), Leaky, codec=Plain())
        engine.repository.add(spec)
        await engine.manager.load(spec)
        for model in ("leaky", "canary-model"):
            asked = Request(model, [{"canary-key": "canary-input"}], time.monotonic() + 10, keys=[b"canary-bytes"])
            with pytest.raises(EngineError) as caught:
                await engine.infer(asked)
            telemetry.http(finished(request=asked, status=500, method="CANARY", exception=caught.value))
            telemetry.http(finished(request=asked, traceparent="canary-trace", exception=ValueError("canary")))
        await engine.close()

    asyncio.run(ask())
    assert b"canary" not in telemetry.metrics.render(None)[0].lower()
    text = out.text()
    assert "RuntimeError" in text
    assert "canary" not in text.lower()


def test_one_that_fails_stops_no_other(logged: Callable[..., Logged], monkeypatch: pytest.MonkeyPatch) -> None:
    out = logged()
    telemetry = Telemetry("0.1.0")
    telemetry.http(finished(seconds=None))  # nothing can be made of this
    telemetry.http(finished())
    events = [line["event"] for line in out.lines()]
    assert events.count("telemetry failed") == 2
    assert events.count("request") == 1
