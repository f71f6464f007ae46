"""The bundle that the first start has something to serve with: trained on a simulated shop, in a process of its own.

    python -P -m maru.services.recommend.starter BUNDLES COMPILED EVENTS

A training takes memory that serving does not need, and a processor for some seconds; both are given back when the
process ends. It tells what it is at in lines of JSON.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from maru.services.recommend.bundles import BundleError, Bundles
from maru.services.recommend.training.errors import TrainingError

log = logging.getLogger(__name__)

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""What the process is told of our environment. Everything else may be a secret."""
NICE = 10


class Starter:
    """Trains the first of `bundles` from so many simulated `events`, and promotes it. `compiled` is where machine
    code is kept."""

    def __init__(self, bundles: Path, compiled: Path, events: int) -> None:
        self._arguments = (str(bundles.absolute()), str(compiled.absolute()), str(events))
        self.stage: str | None = None
        """What the training is at, while there is one."""

    async def train(self) -> bool:
        """Whether a bundle is promoted now. If another process does the same, it is waited for."""
        began = time.monotonic()
        log.info("the starter is trained on a simulated shop", extra={"fields": {"events": int(self._arguments[2])}})
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", __name__, *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
            start_new_session=True,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            async for line in child.stdout:
                self._heard(json.loads(line))
            status = await child.wait()
        finally:
            self.stage = None
            with suppress(ProcessLookupError):
                child.kill()
        seconds = round(time.monotonic() - began, 1)
        if status:
            log.error("the starter could not be trained", extra={"fields": {"status": status, "seconds": seconds}})
        else:
            log.info("the starter is trained", extra={"fields": {"seconds": seconds}})
        return status == 0

    def _heard(self, told: dict[str, Any]) -> None:
        if "error" in told:
            log.error("the starter: %s", told["error"])
        elif told["stage"] != self.stage:
            self.stage = told["stage"]
            log.info("the starter: %s", self.stage)


def main(bundles: Path, compiled: Path, events: int) -> int:
    """In the process."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    os.nice(NICE)
    bundles.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (bundles / ".starter").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if Bundles(bundles).current() is None:
                _train(Bundles(bundles), compiled, events)
        except Exception as error:
            said = str(error) if isinstance(error, (BundleError, TrainingError)) else type(error).__name__
            print(json.dumps({"error": said}), flush=True)  # noqa: T201
            return 1
    return 0


def _train(bundles: Bundles, compiled: Path, events: int) -> None:
    from maru.services.recommend.core.compiling import keep_compiled_in

    keep_compiled_in(compiled)
    from maru.services.recommend.training.train import TrainingOptions, train

    trained = train(TrainingOptions(simulated=events, threads=len(os.sched_getaffinity(0))), _tell)
    bundle = bundles.add(trained.write)
    _tell("compiling", 0.0)
    bundle.recommender().warm()  # from mapped arrays, as whoever serves it will find it compiled
    bundles.promote(bundle.version)


def _tell(stage: str, part: float) -> None:
    print(json.dumps({"stage": stage, "part": round(part, 3)}), flush=True)  # noqa: T201


def _leave_with(parent: int) -> None:
    """End with the process that started this one, also while a library computes."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
