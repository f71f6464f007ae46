"""Real workers over small models. A model is made once in a session; a worker ends with the test that opened it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_llm import SLOW, Reciter, random_gguf, reciting_gguf

from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.transformers import Transformers

WORDS = "one two three four five"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def reciter(folder: Path) -> Reciter:
    """Says WORDS and ends."""
    return reciting_gguf(folder / "reciter.gguf", WORDS)


@pytest.fixture(scope="session")
def random_model(folder: Path) -> Path:
    return random_gguf(folder / "random.gguf")


@pytest.fixture(scope="session")
def slow_model(folder: Path) -> Path:
    """Takes some milliseconds for a token, and a second or more for a prompt of thousands."""
    return random_gguf(folder / "slow.gguf", size=SLOW, kind="Q8_0")


@pytest.fixture
def opened() -> Iterator[Callable[..., GenerationModel]]:
    """Opens a file, and closes its model at the end."""
    with ExitStack() as stack:

        def open_(path: Path, **options: object) -> GenerationModel:
            model = LlamaCpp(**{"slots": 4, "context": 512, "threads": 1, **options}).open(path)  # type: ignore[arg-type]
            stack.callback(model.close)
            return model

        yield open_


@contextmanager
def open_folder(path: Path, **options: Any) -> Iterator[GenerationModel]:
    """A folder of safetensors in a worker of its own."""
    python = os.environ.get("MARU_REFERENCE_PYTHON")
    if not python:
        pytest.fail("MARU_REFERENCE_PYTHON must name an interpreter that has torch, transformers and psutil")
    model = Transformers(**{"slots": 3, "context": 256, "threads": 1, "python": python, **options}).open(path)
    try:
        yield model
    finally:
        model.close()
