from __future__ import annotations

import os
import subprocess
import sys
import time

from maru.telemetry.processes import cpu_seconds

BURN = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


def test_a_child_counts_while_it_lives_and_when_it_has_ended() -> None:
    before = cpu_seconds(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", BURN.format(0.3) + "input()"], stdin=subprocess.PIPE)
    assert before is not None and child.stdin is not None
    until = time.monotonic() + 30
    while (cpu_seconds(child.pid) or 0) < 0.3:
        assert time.monotonic() < until
        time.sleep(0.02)
    living = cpu_seconds(os.getpid())
    child.communicate(b"\n", timeout=10)
    ended = cpu_seconds(os.getpid())
    assert living is not None and ended is not None
    assert living - before >= 0.25 and ended - before >= 0.25


def test_a_process_that_is_not_there() -> None:
    assert cpu_seconds(2**22 + 1) is None
