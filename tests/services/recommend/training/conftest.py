"""What the tests of training share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from maru.services.recommend.core.compiling import keep_compiled_in

# Before any module with compiled functions is imported, and kept from run to run.
keep_compiled_in(Path(tempfile.gettempdir()) / "maru-tests-compiled")


@pytest.fixture(scope="session")
def otto() -> Path:
    """Twenty real sessions, see starters/otto/PROVENANCE.md."""
    return Path(__file__).parents[4] / "starters" / "otto" / "sessions.jsonl"
