"""Writing a bundle: its files first, then the manifest that has their checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maru.services.style.bundle import FORMAT, MANIFEST


def write_bundle(folder: Path, fill: Callable[[Path], Mapping[str, Any]]) -> None:
    """`fill` puts the files into an empty folder and gives what the manifest is to say. Whole or not at all: it is made
    beside its place, and what was there before is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        told = fill(work)
        files = {}
        for file in sorted(work.iterdir()):
            file.chmod(0o644)
            with file.open("rb") as opened:
                files[file.name] = {"sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
        manifest = {"format": FORMAT, **told, "files": files}
        (work / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
        work.chmod(0o755)
        before = work.with_name(f"{work.name}.before")
        if folder.exists():
            folder.rename(before)
        work.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
