"""Where a model's files are put before they are a model."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Self

from maru.runtimes.errors import BadModelFile, ModelUnavailable
from maru.runtimes.registry.types import Bounds

CHUNK = 2**20
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Staging:
    """A new private folder that takes files within `bounds`. `with` it: what was put there is `folder` when the
    block ends well, and gone when it does not."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds
        self._bytes = 0
        self._files = 0

    def __enter__(self) -> Self:
        with _disk():
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._place = Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-", dir=self._folder.parent))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with _disk():
                    self._settle()
        finally:
            shutil.rmtree(self._place, ignore_errors=True)

    @contextmanager
    def file(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """What writes to a new file. `name` is its path within the model, its parts divided by `/`."""
        path = self._place.joinpath(*self.parts(name))
        self._files += 1
        if self._files > self._bounds.max_files:
            raise BadModelFile(f"the model has more than {self._bounds.max_files} files")
        with _disk():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("xb") as opened:

                def write(data: bytes) -> None:
                    self._bytes += len(data)
                    if self._bytes > self._bounds.max_bytes:
                        raise BadModelFile(f"the model is larger than {self._bounds.max_bytes // 2**20} MiB")
                    with _disk():
                        opened.write(data)

                yield write

    def copy(self, source: Path) -> None:
        """Every file in the folder `source`. BadModelFile for a link, or anything else that is no plain file."""
        seen = 0
        for folder, inner, names, descriptor in os.fwalk(source, onerror=_raise, follow_symlinks=False):
            place = PurePosixPath(Path(folder).relative_to(source).as_posix())
            seen += len(inner) + len(names)
            if seen > 2 * self._bounds.max_files:
                raise BadModelFile(f"the model has more than {self._bounds.max_files} files")
            for name in sorted([*inner, *names]):
                mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
                if name in names and stat.S_ISREG(mode):
                    self._copy_file(str(place / name), name, descriptor)
                elif not stat.S_ISDIR(mode):
                    raise BadModelFile("the model holds a link or a device among its files")
                else:
                    self.parts(str(place / name))

    def _copy_file(self, path: str, name: str, folder: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as source, self.file(path) as write:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise BadModelFile("the model holds a link or a device among its files")
            while chunk := source.read(CHUNK):
                write(chunk)

    def parts(self, name: str) -> tuple[str, ...]:
        """The parts of a path within the model; BadModelFile for one that leads out of it, or too deep."""
        parts = tuple(name.split("/"))
        if not all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in parts):
            raise BadModelFile("the model has a file whose name is no plain path within it")
        if len(parts) > self._bounds.max_depth:
            raise BadModelFile(f"the model has folders more than {self._bounds.max_depth} deep")
        return parts

    def _settle(self) -> None:
        if self._folder.is_symlink() or self._folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-", dir=self._folder.parent))
            try:
                self._folder.rename(old / "old")
                self._place.rename(self._folder)
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            self._place.rename(self._folder)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "there is no room left" if error.errno in FULL else errno.errorcode.get(error.errno or 0, "")
        raise ModelUnavailable(f"the model's files can't be written to the disk: {reason}".rstrip(": ")) from error


def _raise(error: OSError) -> None:
    raise error
