"""The forecast model: one window of a time series in, the next close out."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maru.engine.errors import EngineError, InputError, ModelFailed
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.onnx.session import Session
from maru.runtimes.registry.names import SHA256
from maru.runtimes.registry.types import RegisteredVersion
from maru.runtimes.registry.vetting import Graph, Manifest, Tensor
from maru.services.forecast.window import Window

INPUT = "X"
OUTPUT = "pred_btc_close_next"

KINDS: dict[int, type[np.floating[Any]]] = {1: np.float32, 11: np.float64}
"""ONNX's numbers for the element types that a graph may take."""

INLINE_S = 0.001
"""What a full batch may take to be computed on the event loop."""

LARGEST_BATCH = 32
"""Of windows, so that a batch of an LSTM takes well under `INLINE_S`. Larger ones are hardly faster a window."""

AGREE = 1e-4
"""Relative. By how much the answer to a window may depend on what else is in its batch."""


class Forecaster(Model):
    """An ONNX graph of [N, seq_len, n_features] as a model of the engine, which is given one window at a time.

    A graph that takes one window only, or whose answers depend on their neighbours, is run window by window.
    """

    inline = True

    def __init__(
        self, version: RegisteredVersion, graph: Graph, facts: Mapping[str, Any], *, seq_len: int, n_features: int,
        max_batch_size: int,
    ) -> None:  # fmt: skip
        """BadModelFile and UnsupportedModel say what is wrong with the graph."""
        given = _input(graph, seq_len, n_features)
        self._input, self._dtype = given.name, KINDS[given.kind]
        self._together = given.shape[0] is None
        self._max_batch_size = max_batch_size
        self._shape = (seq_len, n_features)
        self._session = Session(graph.path)
        self.memory_bytes = graph.memory_bytes
        self.metadata = described(version, graph.digest, facts, seq_len, n_features, "onnxruntime_cpu")

    @classmethod
    def spec(
        cls, version: RegisteredVersion, folder: Path, *, seq_len: int, n_features: int, limits: Limits
    ) -> ModelSpec:
        """How the model whose files are in `folder` is served. Reads them all, and runs nothing. A batch is no
        larger than `LARGEST_BATCH`, whatever the limits say.

        BadModelFile and UnsupportedModel say why it can't be. The folder is needed until the model is loaded.
        """
        manifest = Manifest.read(folder)
        graph = manifest.graph(version.tags.get(SHA256))
        facts = checked_facts(manifest.metadata, n_features)
        _input(graph, seq_len, n_features)
        limits = replace(limits, max_batch_size=min(limits.max_batch_size, LARGEST_BATCH))

        def load() -> Model:
            return cls(
                version, graph, facts, seq_len=seq_len, n_features=n_features, max_batch_size=limits.max_batch_size
            )

        ref = ModelRef(version.name, version.version, graph.digest)
        return ModelSpec(ref, load, limits, ForecastCodec(), memory_bytes=graph.memory_bytes)

    def prepare(self, inputs: Sequence[Window]) -> list[Prepared | Exception]:
        return [ready(window, self._shape) for window in inputs]

    def predict(self, batch: Sequence[Window]) -> list[float | Exception]:
        """The next close after each window. One that comes out as no number fails alone."""
        if self._together:
            answers = self._run(np.stack(batch) if len(batch) > 1 else batch[0][None])
        else:
            answers = np.concatenate([self._run(window[None]) for window in batch])
        return [finite(answer) for answer in answers.tolist()]

    def warm(self) -> None:
        """BadModelFile for a graph that gives no answer, or not one number for a window."""
        tried = probes(*self._shape)
        try:
            alone = np.concatenate([self._run(probe[None]) for probe in tried])
        except EngineError:
            raise
        except Exception as error:  # onnxruntime's own, which share no base
            raise BadModelFile("the model fails when it is run") from error
        if not np.isfinite(alone).any():
            raise BadModelFile("the model's answers are not finite numbers")
        self._together = self._together and self._agrees(tried, alone)
        full = [tried[0]] * self._max_batch_size
        self.predict(full)
        self.inline = min(self._timed(full) for _ in range(3)) < INLINE_S

    def _run(self, windows: Window) -> np.ndarray[Any, np.dtype[np.float64]]:
        (answers, *_) = self._session.run({self._input: windows.astype(self._dtype, copy=False)})
        if not isinstance(answers, np.ndarray) or answers.size != len(windows) or answers.dtype.kind != "f":
            raise ModelFailed("the model does not answer with one number for a window")
        return answers.reshape(-1).astype(np.float64)

    def _agrees(self, windows: Sequence[Window], alone: np.ndarray[Any, Any]) -> bool:
        try:
            return bool(np.allclose(self._run(np.stack(windows)), alone, rtol=AGREE, equal_nan=True))
        except Exception:  # a graph that says it takes any number of windows, and does not
            return False

    def _timed(self, batch: Sequence[Window]) -> float:
        started = time.perf_counter()
        self.predict(batch)
        return time.perf_counter() - started


class ForecastCodec:
    """A forecast as bytes: a mark and the number, so that it can be cached."""

    _layout = struct.Struct("<4sd")
    _mark = b"fct1"

    def encode(self, output: float) -> bytes:
        return self._layout.pack(self._mark, output)

    def decode(self, data: bytes) -> float:
        """ValueError for anything that `encode` did not make."""
        if len(data) != self._layout.size or data[:4] != self._mark:
            raise ValueError("not a forecast")
        return float(self._layout.unpack(data)[1])


def canonical(window: Window) -> bytes:
    """The same bytes for the same window, and for no other."""
    return struct.pack(f"<{window.ndim}I", *window.shape) + window.astype("<f4", copy=False).tobytes()


def ready(window: Window, shape: tuple[int, int]) -> Prepared | InputError:
    """The window as a model of that shape takes it, or what is wrong with it."""
    if window.shape != shape:
        return InputError(f"a window must be of shape {list(shape)}, not {list(window.shape)}")
    if not np.isfinite(window).all():
        return InputError("a window must hold finite numbers")
    return Prepared(window)


def finite(answer: float) -> float | ModelFailed:
    """The answer, or the error that stands in its place."""
    return answer if math.isfinite(answer) else ModelFailed("the forecast is not a finite number")


def checked_facts(metadata: Mapping[str, Any], n_features: int) -> dict[str, Any]:
    """What a model may say of itself: `features`, `close_index`, `interval`, each None when it doesn't.

    BadModelFile when it says what can't be: its features would be read in another order than it was trained with.
    """
    features, close_index, interval = (metadata.get(key) for key in ("features", "close_index", "interval"))
    if features is not None and not (
        isinstance(features, list) and all(isinstance(name, str) and 0 < len(name) <= 128 for name in features)
    ):
        raise BadModelFile("the model's features are not a list of names")
    if features is not None and (len(features) != n_features or len(set(features)) != n_features):
        raise UnsupportedModel(f"the model names {len(set(features))} features, and {n_features} are served")
    if close_index is not None and not (type(close_index) is int and 0 <= close_index < n_features):
        raise BadModelFile("the model's close_index is not the place of a feature")
    if interval is not None and not (isinstance(interval, str) and len(interval) <= 32):
        raise BadModelFile("the model's interval is not a short text")
    return {"features": features, "close_index": close_index, "interval": interval}


def described(
    version: RegisteredVersion, digest: str, facts: Mapping[str, Any], seq_len: int, n_features: int, platform: str
) -> dict[str, Any]:
    """A model's metadata, for the doors."""
    told = {
        "name": version.name,
        "version": version.version,
        "source": version.source,
        "sha256": digest,
        "seq_len": seq_len,
        "n_features": n_features,
        **facts,
    }
    return {
        **told,
        "platform": platform,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, seq_len, n_features]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, 1]}],
        "parameters": {key: value for key, value in told.items() if value is not None},
    }


def _input(graph: Graph, seq_len: int, n_features: int) -> Tensor:
    """The graph's one input. UnsupportedModel when it is not a window of that shape."""
    if len(graph.inputs) != 1 or not graph.outputs:
        raise UnsupportedModel(f"the model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    given = graph.inputs[0]
    wanted = [(None, 1), (None, seq_len), (None, n_features)]
    fits = len(given.shape) == 3 and all(size in sizes for size, sizes in zip(given.shape, wanted, strict=True))
    if not fits:
        shape = ", ".join("N" if size is None else str(size) for size in given.shape)
        raise UnsupportedModel(f"the model takes [{shape}], and [N, {seq_len}, {n_features}] is served")
    if given.kind not in KINDS:
        raise UnsupportedModel("the model takes neither float32 nor float64")
    return given


def probes(seq_len: int, n_features: int) -> list[Window]:
    """Windows that a model may be tried on: all alike, a course of prices, and small changes about nothing."""
    steps = np.arange(seq_len)[:, None] + np.arange(n_features) / n_features
    tried = [np.ones((seq_len, n_features)), 60_000.0 * (1 + 0.01 * np.sin(steps)), 0.01 * np.sin(steps)]
    return [window.astype(np.float32) for window in tried]
