"""Fetching a model's files from the Hugging Face hub, or from another that speaks as it does."""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path
from typing import Any

from maru.runtimes.errors import ModelUnavailable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?")

FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
"""Weights, configuration and tokenizers. No format that can hold code is ever fetched."""

ELSEWHERE = ["onnx/*", "openvino/*", "original/*", ".*", "*/.*"]
"""The same model in forms that are not read."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fetch(name: str, cache: Path, *, token: str | None = None, endpoint: str | None = None) -> Path:
    """The folder of a repository's newest revision, downloaded into `cache` as far as it isn't there.

    A connection that breaks is taken up where it broke. Without network, what was downloaded before is used.
    Every file is held against the checksum that the hub gave for it. ModelUnavailable says why the model
    can't be had, and what to do.
    """
    check_name(name)
    folder = _download(name, cache, token, endpoint)
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not _intact(file):
            file.resolve().unlink()
            file.unlink()
            raise ModelUnavailable(f"{file.name} of {name} does not match its checksum; fetch it again")
    return folder


def _download(name: str, cache: Path, token: str | None, endpoint: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Quiet(tqdm):
        """No bars on a server's standard error."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    try:
        folder = snapshot_download(
            name,
            cache_dir=cache,
            token=token,
            endpoint=endpoint,
            allow_patterns=FILES,
            ignore_patterns=ELSEWHERE,
            tqdm_class=Quiet,
        )
    except Exception as error:  # of the library, the network or the disk
        raise unavailable(name, error) from error
    return Path(folder)


def unavailable(name: str, error: Exception) -> ModelUnavailable:
    """What to tell of a repository that could not be had."""
    from huggingface_hub import errors

    match error:
        case ModelUnavailable():
            return error
        case errors.GatedRepoError():
            said = "is gated: accept its terms on the hub, and set HF_TOKEN to a token of that account"
        case errors.RepositoryNotFoundError():
            said = "is not on the hub, or is private and HF_TOKEN does not open it"
        case _:
            said = _reason(error)
    return ModelUnavailable(f"{name} {said}")


def check_name(name: str) -> None:
    """ModelUnavailable for what can be no repository's name."""
    if not NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ModelUnavailable(f"{name[:96]!r} is no name of a repository on the hub, which is like owner/model")


def _reason(error: Exception) -> str:
    """What to tell of a failed download, by what is at the bottom of it."""
    for cause in (error, error.__cause__, error.__context__):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return f"is refused by the hub ({status}): HF_TOKEN is wrong, or has no access to it"
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return "does not fit on the disk: there is no room left"
    return f"can't be fetched from the hub ({type(error).__name__}), and was not fetched before"


def _intact(file: Path) -> bool:
    """The cache names a file's content by its checksum, SHA-256 or git's SHA-1, and links to it."""
    if not file.is_symlink():
        return True
    checksum = file.readlink().name
    with file.open("rb") as opened:
        if len(checksum) == 64:
            return hashlib.file_digest(opened, "sha256").hexdigest() == checksum
        content = opened.read()
    blob = b"blob %d\0" % len(content) + content
    return len(checksum) != 40 or hashlib.sha1(blob, usedforsecurity=False).hexdigest() == checksum
