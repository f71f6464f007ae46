"""One ONNX graph, ready to run from several threads at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from maru.engine.errors import OutOfMemory
from maru.runtimes.errors import BadModelFile
from maru.runtimes.onnx.saturation import products_saturate

FATAL = 4
"""What fails is raised; the runtime's own lines would go past the log, and may show what a person wrote."""

_NO_MEMORY = ("bad_alloc", "failed to allocate", "allocate memory", "bad allocation", "out of memory")


class Session:
    """Runs on the calling thread alone: for more cores there are more callers, on the same weights."""

    def __init__(self, path: Path, *, int8: bool = False) -> None:
        """`int8` says that the graph has 8-bit products, which must be exact.

        BadModelFile when the graph can't be loaded, OutOfMemory when it does not fit.
        """
        options = session_options()
        if int8 and products_saturate(session_options()):
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _memory(error) or BadModelFile(f"{path.name} can't be loaded by onnxruntime") from error
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]], *, unusual: bool = False) -> list[Any]:
        """Every output, in the graph's order. OutOfMemory when there is not enough of it.

        After an `unusual` run, one much larger than most, its working memory is given back.
        """
        options = ort.RunOptions() if unusual else None
        if options:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            outputs: list[Any] = self._session.run(None, inputs, options)
        except Exception as error:
            raise _memory(error) or error from error
        return outputs


def session_options() -> ort.SessionOptions:
    """One thread, none of it spinning; and no memory kept for each shape that was ever seen."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    options.log_severity_level = FATAL
    return options


def _memory(error: Exception) -> OutOfMemory | None:
    said = str(error).lower()
    missing = isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY)
    return OutOfMemory("the model ran out of memory") if missing else None
