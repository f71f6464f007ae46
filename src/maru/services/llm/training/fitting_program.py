"""Runs `fitting.py` in a process of its own, with an interpreter that has torch."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maru.services.llm.training.errors import TrainingError
from maru.services.llm.training.llama import Weights

PROGRAM = Path(__file__).with_name("fitting.py")
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""What the process is told of our environment. Everything else may be a secret."""
PATIENT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Threads that wait must sleep: spinning beside others that work, they make all of it many times slower."""

Ids = np.ndarray[Any, np.dtype[np.int32]]
Log = tuple[dict[str, float], ...]


def check(python: Path) -> None:
    """TrainingError when this interpreter has no torch, or it can't be run."""
    try:
        asked = subprocess.run(  # noqa: S603
            [python, "-P", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"],
            env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrainingError(f"{python} can't be run: {type(error).__name__}") from None
    if asked.returncode:
        raise TrainingError(f"{python} has no torch: pip install 'maru[torch]', or name another interpreter: --python")


def run(
    python: Path, job: dict[str, Any], train: Ids, held_out: Ids, progress: Callable[[str, int, int], None]
) -> tuple[Weights, Log]:
    """The weights by their names, and what was told of each step. TrainingError when it failed."""
    steps = job["steps"]
    with tempfile.TemporaryDirectory(prefix="maru-train-") as folder:
        place = Path(folder)
        (place / "job.json").write_text(json.dumps(job), "utf-8")
        np.save(place / "train.npy", train)
        np.save(place / "held_out.npy", held_out)
        log = []
        with (place / "errors").open("w+b") as errors:
            child = subprocess.Popen(  # noqa: S603
                [python, "-P", PROGRAM, place, str(os.getpid())],
                env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
            assert child.stdout is not None
            try:
                progress("training", 0, steps)
                for line in child.stdout:
                    log.append(json.loads(line))
                    progress("training", int(log[-1]["step"]), steps)
                status = child.wait()
            finally:
                child.kill()
                child.wait()
                child.stdout.close()
            if status:
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip().splitlines()
                raise TrainingError(f"the training failed: {said[-1] if said else f'status {status}'}")
        with np.load(place / "weights.npz") as stored:
            return dict(stored), tuple(log)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | PATIENT
