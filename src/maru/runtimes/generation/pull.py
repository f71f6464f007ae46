"""Getting models from the hub into the folder of models, and out of it again.

A download that was broken off, or whose process ended, goes on where it stopped. A file gets its name when it is
whole and its checksum is right, so that no half of a model is ever listed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maru.runtimes.errors import ModelUnavailable
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.hub import check_name, unavailable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

PARTIAL = ".partial"
"""Where files are until they are whole, within the folder of models."""

BESIDE = (".json", ".txt", ".model", ".jinja")
"""What belongs to safetensors. No format that can hold code is ever fetched."""

SPARE_BYTES = 64 << 20
"""What must be left on the disk."""

Progress = Callable[[str, int, int], None]
"""Is told a file's name, and how many bytes of how many of the whole pull are there."""


def generates(name: str, *, token: str | None = None, endpoint: str | None = None) -> bool:
    """Whether a repository holds a model that generates: not one of sentence-transformers, which has a modules.json."""
    check_name(name)
    try:
        return not any(file.path == "modules.json" for file in _listed(name, token, endpoint)[1])
    except Exception as error:  # of the library or the network
        raise unavailable(name, error) from error


def pull(
    name: str,
    folder: Path,
    file: str | None = None,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Progress = lambda file, done, total: None,
) -> Path:
    """Fetch `file` of a repository, or all that its model needs, and give the path of the model.

    ModelUnavailable says why it can't be had, and what to do: which files there are, when there are several.
    """
    check_name(name)
    target = folder / name.replace("/", "--")
    try:
        commit, files = _listed(name, token, endpoint)
        wanted = _chosen(name, files, file)
        missing = [each for each in wanted if not _here(target / _local(each), each)]
        total = sum(each.size for each in wanted)
        done = total - sum(each.size for each in missing)
        partial = folder / PARTIAL
        partial.mkdir(parents=True, exist_ok=True)
        _check_room(name, folder, missing)
        for each in missing:
            whole = _fetched(name, commit, each, partial, token, endpoint, _after(done, each.path, total, progress))
            target.mkdir(exist_ok=True)
            whole.replace(target / _local(each))
            done += each.size
    except Exception as error:  # of the library, the network or the disk
        raise unavailable(name, error) from error
    return target / _local(wanted[0]) if wanted[0].path.endswith(".gguf") else target


def _after(done: int, file: str, total: int, progress: Progress) -> Callable[[int], None]:
    return lambda more: progress(file, done + more, total)


def remove(catalogue: Catalogue, id: str) -> int:
    """Delete a model's files; how many bytes that were. ModelUnavailable when there is no model of that id.

    A model that is in memory serves on until it is unloaded.
    """
    catalogue.scan()
    entry = catalogue.get(id)
    if entry is None:
        known = ", ".join(sorted(each.id for each in catalogue)) or "none"
        raise ModelUnavailable(f"there is no model {id[:64]!r}; there are: {known}")
    try:
        if entry.path.is_dir() and not entry.path.is_symlink():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
            inside = entry.path.parent
            if inside != catalogue.folder and not any(inside.iterdir()):
                inside.rmdir()
    except OSError as error:
        raise ModelUnavailable(f"{id} can't be removed ({type(error).__name__})") from error
    return entry.size


def _listed(name: str, token: str | None, endpoint: str | None) -> tuple[str, list[RepoFile]]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint, token=token)
    commit = api.model_info(name).sha or "main"
    return commit, [
        each for each in api.list_repo_tree(name, recursive=True, revision=commit) if isinstance(each, RepoFile)
    ]


def _chosen(name: str, files: Sequence[RepoFile], file: str | None) -> list[RepoFile]:
    """The files to fetch. Names are compared with the hub's list, and only their last part becomes a path."""
    ggufs = [each for each in files if each.path.endswith(".gguf")]
    if file is None and any(each.path == "config.json" for each in files):
        weights = [each for each in files if "/" not in each.path and each.path.endswith(".safetensors")]
        beside = [each for each in files if "/" not in each.path and each.path.endswith(BESIDE)]
        if weights:
            return weights + beside
    if file is None and len(ggufs) == 1:
        return ggufs
    found = [each for each in ggufs if each.path == file]
    if found:
        return found
    if not ggufs:
        raise ModelUnavailable(f"{name} has neither a GGUF file nor a model of safetensors with its config.json")
    names = ", ".join(f"{each.path} ({each.size / 1e9:.1f} GB)" for each in ggufs[:40])
    raise ModelUnavailable(f"{name} has several files, name one with --file: {names}")


def _local(file: RepoFile) -> str:
    local = file.path.rpartition("/")[2]
    if local.startswith(".") or "\\" in local or not local.isprintable():
        raise ModelUnavailable(f"{file.path[:96]!r} is no name that a file may have here")
    return local


def _here(path: Path, file: RepoFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and _checksum(path, file) == _expected(file)


def _expected(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs is not None else file.blob_id


def _checksum(path: Path, file: RepoFile) -> str:
    """As the hub makes it: SHA-256 of large files, git's SHA-1 of small ones."""
    with path.open("rb") as opened:
        if file.lfs is not None:
            return hashlib.file_digest(opened, "sha256").hexdigest()
        content = opened.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _check_room(name: str, folder: Path, missing: Sequence[RepoFile]) -> None:
    parts = [folder / PARTIAL / _expected(each) for each in missing]
    needed = sum(each.size for each in missing) - sum(part.stat().st_size for part in parts if part.is_file())
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise ModelUnavailable(f"{name} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the disk are free")


def _fetched(
    name: str,
    commit: str,
    file: RepoFile,
    partial: Path,
    token: str | None,
    endpoint: str | None,
    progress: Callable[[int], None],
) -> Path:
    """The whole file, under the name of its checksum."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import tqdm

    path = partial / _expected(file)

    class Told(tqdm):
        """No bar of its own."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.count = options.get("initial", 0)
            progress(self.count)

        def update(self, n: float | None = 1) -> bool | None:
            self.count += n or 0
            progress(int(self.count))
            return None

    with path.open("ab") as opened:
        there = opened.tell()
        if there > file.size:
            there = opened.truncate(0)
        http_get(
            hf_hub_url(name, file.path, revision=commit, endpoint=endpoint),
            opened,
            resume_size=there,
            headers=build_hf_headers(token=token),
            expected_size=file.size,
            tqdm_class=Told,
        )
    if _checksum(path, file) != _expected(file):
        path.unlink()
        raise ModelUnavailable(f"{file.path} of {name} does not match its checksum; fetch it again")
    return path
