"""What `maru models` does with the folder of language models."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from maru.commands.screen import fail, screen
from maru.settings import Settings


def generates(settings: Settings, repository: str) -> bool:
    """Whether it is a language model, and no sentence encoder."""
    from maru.runtimes.errors import ModelUnavailable
    from maru.runtimes.generation.pull import generates

    try:
        return generates(repository, token=settings.hf_token, endpoint=settings.hf_endpoint)
    except ModelUnavailable as error:
        fail(str(error))


def pull_model(settings: Settings, repository: str, file: str | None) -> Path:
    """Fetch a repository's model, or one file of it, into the folder: the path of it."""
    from maru.rooms.ai import folder_of
    from maru.runtimes.errors import ModelUnavailable
    from maru.runtimes.generation.pull import pull

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns, TimeRemainingColumn(), console=screen) as bars:
            task = bars.add_task(repository, total=None)

            def told(name: str, done: int, total: int) -> None:
                bars.update(task, description=name, completed=done, total=total)

            token, endpoint = settings.hf_token, settings.hf_endpoint
            return pull(repository, folder_of(settings), file, token=token, endpoint=endpoint, progress=told)
    except ModelUnavailable as error:
        fail(str(error))


def remove_model(settings: Settings, id: str) -> None:
    """Delete a model's files, and say how large they were."""
    from maru.rooms.ai import catalogue_of
    from maru.runtimes.errors import ModelUnavailable
    from maru.runtimes.generation.pull import remove

    try:
        size = remove(catalogue_of(settings), id)
    except ModelUnavailable as error:
        fail(str(error))
    print(f"{id} is gone: {size / 2**20:.1f} MiB")  # noqa: T201
