"""The model that the first start has something to serve with.

    python -P -m maru.services.forecast.starter REGISTRY NAME ALIAS

registers it in the embedded registry in that folder: in a process of its own, as MLflow is a large program.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from pathlib import Path

from maru.runtimes.registry.types import Registry
from maru.services.forecast.training.bundle import Bundle, starter

log = logging.getLogger(__name__)


class NotPlanted(Exception):
    """The starter could not be registered."""


async def plant(registry: Registry, folder: Path, name: str, alias: str) -> None:
    """Register the starter as `name` in the embedded `registry` in that folder, unless it has a model of that name.
    Takes some seconds in a new folder. RegistryError, NotPlanted."""
    if starter() is None or any(model.name == name for model in await registry.models()):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", __name__, str(folder), name, alias,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said, _ = await child.communicate()
    finally:
        with suppress(ProcessLookupError):
            child.kill()
    if child.returncode:
        raise NotPlanted
    log.info("the starter model is registered", extra={"fields": {"model": f"{name}@{said.decode().strip()}"}})


def main(registry: Path, name: str, alias: str) -> None:
    """In the process: prints the version."""
    folder = starter()
    assert folder is not None
    print(Bundle.read(folder).register(registry, name, alias).version)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
