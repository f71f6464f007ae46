"""The files of a bundle, each of which is the one that was written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from maru.runtimes.errors import BadModelFile
from maru.runtimes.json_file import JsonFile


class Files:
    """Where the files are that a manifest lists. No other file of the folder is ever read."""

    def __init__(self, folder: Path, manifest: JsonFile) -> None:
        """Reads all of them. BadModelFile when one is missing or does not match its checksum."""
        listed = manifest.child("files")
        self._folder, self._names = folder, [*manifest.get("files", dict, {})]
        self.bytes = 0
        for name in self._names:
            if Path(name).name != name or name.startswith("."):
                raise BadModelFile(f"{manifest.name} lists a file that is not in the bundle's folder")
            wanted = listed.child(name).get("sha256", str)
            try:
                with (folder / name).open("rb") as opened:
                    found = hashlib.file_digest(opened, "sha256").hexdigest()
                    self.bytes += opened.tell()
            except OSError:
                raise BadModelFile(f"{name} is missing or can't be read") from None
            if found != wanted:
                raise BadModelFile(f"{name} does not match its checksum in {manifest.name}")

    def __getitem__(self, name: str) -> Path:
        """BadModelFile when the manifest does not list it."""
        if name not in self._names:
            raise BadModelFile(f"the bundle has no checksum of {name[:64]}")
        return self._folder / name
