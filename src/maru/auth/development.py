"""Credentials for a server that only this machine can reach, made when there are none."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def development_secret(home: Path) -> str:
    """The secret that signs this home's development tokens: made at the first call, readable by its owner alone."""
    file = home / "development-jwt-secret"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError), os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(secrets.token_urlsafe(48))
    return file.read_text()
