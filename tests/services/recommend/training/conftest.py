"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import COMPILED

from maru.services.recommend.core.compiling import keep_compiled_in

# Before any module with compiled functions is imported, and kept from run to run.
keep_compiled_in(COMPILED)


@pytest.fixture(scope="session")
def otto() -> Path:
    """Twenty real sessions, see starters/otto/PROVENANCE.md."""
    return Path(__file__).parents[4] / "starters" / "otto" / "sessions.jsonl"
