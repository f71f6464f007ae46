"""What the engine's tests share: `virtual.py` (time), `fakes.py` (models), `schedule.py` (random play)."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.engine.fakes", "tests.engine.schedule", "tests.engine.virtual")
