"""What is known to every test of the engine lives in `virtual.py` (time), `fakes.py` (models) and `schedule.py`."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.engine.fakes", "tests.engine.schedule", "tests.engine.virtual")
