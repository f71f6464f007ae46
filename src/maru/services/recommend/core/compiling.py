"""How the numeric loops become machine code, and where that code is kept between starts."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])


def keep_compiled_in(folder: Path) -> None:
    """Keep the machine code under `folder`. To be called before any module here that holds compiled functions is
    imported.

    numba looks at the file of the function it was asked for, and not at those that it calls: hence a folder for each
    state of the sources.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    kept = str(folder / digest.hexdigest()[:16])
    os.environ["NUMBA_CACHE_DIR"] = kept
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = kept


def compiled(function: Function) -> Function:
    """Compiled when it is first called with arguments of new types, and kept. Runs without the interpreter's lock."""
    return _made(function, False)


def compiled_for_sums(function: Function) -> Function:
    """`compiled`, and its sums may be taken in another order, as vector instructions need. Not for what must come out
    the same on every kind of processor."""
    return _made(function, {"reassoc", "contract", "nsz"})


def _made(function: Function, loosely: bool | set[str]) -> Function:
    import numba

    made: Any = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=loosely)(function)
    return cast(Function, made)
