"""What the engine's tests share is in `virtual.py` (time), `fakes.py` (models) and `schedule.py` (players)."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.engine.fakes", "tests.engine.schedule", "tests.engine.virtual")
