"""`maru bench llm` on the models of this machine, without a server."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.contracts.llm.benchmarks.paced import PacedRuntime

from maru.engine.engine import Engine
from maru.runtimes.generation.catalogue import Catalogue
from maru.services.llm.assembly import Generating
from maru.services.llm.benchmarks.command import CommandError, Opened, Options, run
from maru.services.llm.benchmarks.plan import Level
from maru.services.llm.configuration import Configuration
from maru.services.llm.service import Generations


def opener(folder: Path, *names: str) -> Opened:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.gguf").touch()
    runtime: Any = PacedRuntime()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Generations]:
        engine = Engine()
        generating = Generating(engine, Catalogue(folder, {"gguf": runtime, "safetensors": runtime}), Configuration())
        await generating.models.look()
        engine.lifecycle.advance("ready")
        try:
            yield generating.generations
        finally:
            await engine.close()

    return opened


def measure(options: Options, opened: Opened, **more: Any) -> tuple[int, str]:
    screen = Console(file=io.StringIO(), width=200)
    code = run(options, opened, screen, more.get("output"), more.get("as_json", False))
    assert isinstance(screen.file, io.StringIO)
    return code, screen.file.getvalue()


def test_a_model_is_measured_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(["a b", "c"], "quick-1", concurrency=(1, 2), requests=4, max_tokens=3, warmups=1)
    code, said = measure(options, opener(tmp_path / "models", "quick-1"), as_json=True, output=tmp_path / "out")
    assert code == 0 and "2 at once" in said
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert [level["requests"]["ok"] for level in result["levels"]] == [4, 4]
    assert result["model"]["id"] == "quick-1" and result["model"]["architecture"] == "paced"
    assert result["levels"][0]["cpu_s"] is not None
    assert result["levels"][0]["ttft_s"]["p50"] > 0.0009


def test_without_a_name_it_is_the_first_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = opener(tmp_path / "models", "b-1", "c-1")
    (tmp_path / "models" / "a-1.gguf").write_text("bad")
    assert measure(Options(["x"], max_tokens=1, warmups=0), opened, as_json=True)[0] == 0
    assert json.loads(capsys.readouterr().out)["model_id"] == "b-1"


def test_a_model_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no model other; there are: quick-1"):
        measure(Options(["x"], "other"), opener(tmp_path / "models", "quick-1"))
    with pytest.raises(CommandError, match="there are: none"):
        measure(Options(["x"]), opener(tmp_path / "empty"))


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    code, said = measure(Options(["fail"], "quick-1"), opener(tmp_path / "models", "quick-1"))
    assert code == 1 and "OutOfMemory" in said


def test_what_the_options_ask_for() -> None:
    plan = Options(["a", "b"], concurrency=(1, 8), repetitions=2, max_tokens=5, fixed_length=True, chat=True).plan()
    assert plan.levels == (Level(2, 1), Level(8, 8)) and plan.repetitions == 2
    assert plan.prompts[0].messages == [{"role": "user", "content": "a"}]
    assert plan.prompts[0].sampling.ignore_eos and not plan.prompts[0].reuse
    rates = Options(["a"], rates=(1.0, 2.0), arrivals="constant", requests=7).plan().levels
    assert [(level.rate, level.requests) for level in rates] == [(1.0, 7), (2.0, 7)]
    assert {level.arrivals for level in rates} == {"constant"}
    assert Options(["a"], rates=(1.0,), sweep=2, concurrency=(4,)).plan().levels == (Level(4, 4),)


def test_the_key_is_in_nothing_that_is_written() -> None:
    assert "secret" not in json.dumps(Options(["a"], key="secret").told())
