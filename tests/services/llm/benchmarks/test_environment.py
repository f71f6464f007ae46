from __future__ import annotations

import json
import socket
from pathlib import Path

from maru.services.llm.benchmarks.environment import environment
from maru.telemetry.gpu import Gpu
from maru.telemetry.host import HostSample


def test_what_it_ran_on_and_not_where() -> None:
    gpu = Gpu(0, "NVIDIA H200", 90.0, 5, 8, 55.0, 300.5)
    found = environment(HostSample(1.0, 2.0, 3, 4, 5, (gpu,)))
    assert found["gpus"] == [{"index": 0, "name": "NVIDIA H200", "memory_bytes": 8}]
    assert found["memory_bytes"] == 5 and found["cpu"] and found["usable_cores"] >= 1
    assert found["python"].startswith("3.") and found["packages"]["aiohttp"]
    assert len(found["load_average"]) == 3
    said = json.dumps(found)
    for private in (str(Path.home()), str(Path.cwd()), socket.gethostname()):
        assert len(private) < 3 or private not in said
