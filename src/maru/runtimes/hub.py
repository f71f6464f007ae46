"""Fetching a model's files from the Hugging Face hub, or from another that speaks as it does."""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path

from maru.runtimes.errors import ModelUnavailable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?")

FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
"""Weights, configuration and tokenizers. No format that can hold code is ever fetched."""

ELSEWHERE = ["onnx/*", "openvino/*", "original/*", ".*", "*/.*"]
"""The same model in forms that are not read."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fetch(name: str, cache: Path, *, token: str | None = None, endpoint: str | None = None) -> Path:
    """The folder of the newest revision of a repository, downloaded into `cache` as far as it isn't there.

    A download that broke off is taken up again. Without network, what was downloaded before is used. Every file
    is held against the checksum that the hub gives for it. ModelUnavailable says why it can't be had, and what
    to do.
    """
    if not NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ModelUnavailable(f"{name[:96]!r} is no name of a repository on the hub, which is like owner/model")
    folder = _download(name, cache, token, endpoint)
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not _intact(file):
            file.resolve().unlink()
            file.unlink()
            raise ModelUnavailable(f"{file.name} of {name} does not match its checksum; fetch it again")
    return folder


def _download(name: str, cache: Path, token: str | None, endpoint: str | None) -> Path:
    import httpx2
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            name, cache_dir=cache, token=token, endpoint=endpoint, allow_patterns=FILES, ignore_patterns=ELSEWHERE
        )
    except errors.GatedRepoError:
        raise ModelUnavailable(
            f"{name} is gated: accept its terms on the hub, and set HF_TOKEN to a token of that account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelUnavailable(
            f"the hub has no {name}, or it is private and HF_TOKEN does not open it"
        ) from None
    except (httpx2.HTTPError, OSError) as error:
        raise ModelUnavailable(_reason(name, error)) from error
    return Path(folder)


def _reason(name: str, error: BaseException) -> str:
    """What to tell of a failed download, by what is at the bottom of it."""
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    for cause in chain:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return f"the hub refuses {name} to this HF_TOKEN ({status}): it is wrong, or has no access"
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return f"there is no room on the disk for {name}"
    return f"{name} can't be fetched from the hub ({type(error).__name__}), and is not here from before"


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
