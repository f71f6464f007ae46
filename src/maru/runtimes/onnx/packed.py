"""How token sequences are laid out for a graph: one after another, with no padding between them.

Only attention needs sequences side by side. There, `side_by_side` and `in_a_row` translate rows of the packed
matrix to [sequence, position] and back, and `lengths` says which positions are padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from onnx import TensorProto

from maru.runtimes.onnx.graph import Graph

Pooling = Literal["mean", "cls", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]

POOLINGS: dict[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
}
"""By sentence-transformers' names, with the switch of each in older files."""

Numbers = np.ndarray[Any, Any]

FULL_RUN = 512
"""Tokens after which a larger matrix product is no faster."""
FILLED_RUN = 192
"""Tokens after which padding costs more than a larger product gains."""
SPREAD = 1.6
"""How much longer than the shortest the longest sequence of a filled run may be."""


class Inputs(NamedTuple):
    """The names of a graph's inputs. T tokens in B sequences, the longest of S tokens."""

    ids: str
    positions: str
    side_by_side: str
    in_a_row: str
    lengths: str
    pool: str

    @classmethod
    def declare(cls, graph: Graph) -> Inputs:
        return cls(
            ids=graph.input("ids", TensorProto.INT64, "T"),
            positions=graph.input("positions", TensorProto.INT64, "T"),
            side_by_side=graph.input("side_by_side", TensorProto.INT64, "B", "S"),
            in_a_row=graph.input("in_a_row", TensorProto.INT64, "T"),
            lengths=graph.input("lengths", TensorProto.INT32, "B"),
            pool=graph.input("pool", TensorProto.FLOAT, "B", "T"),
        )


def runs(lengths: Sequence[int]) -> list[list[int]]:
    """Sequences, by their index, in groups best computed together: alike in length, and not too large."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[index]
        if groups:
            longest = lengths[groups[-1][0]]
            if tokens + length <= FULL_RUN and not (tokens >= FILLED_RUN and longest > SPREAD * length):
                groups[-1].append(index)
                tokens += length
                continue
        groups.append([index])
        tokens = length
    return groups


def pack(sequences: Sequence[Sequence[int]], skip: Sequence[int], pooling: Pooling) -> dict[str, Numbers]:
    """The inputs for these sequences; the first `skip` tokens of each are left out of its pooling."""
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    starts = np.cumsum(lengths) - lengths
    total, longest = int(lengths.sum()), int(lengths.max())
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.arange(total) - starts[sequence]
    columns = np.arange(longest)
    weights = np.zeros((len(lengths), total), np.float32)
    weights[sequence, np.arange(total)] = _shares(positions, sequence, lengths, np.asarray(skip), pooling)
    return {
        "ids": np.concatenate([np.asarray(ids, np.int64) for ids in sequences]),
        "positions": positions,
        "side_by_side": np.where(columns < lengths[:, None], starts[:, None] + columns, 0),
        "in_a_row": sequence * longest + positions,
        "lengths": lengths.astype(np.int32),
        "pool": weights,
    }


def _shares(positions: Numbers, sequence: Numbers, lengths: Numbers, skip: Numbers, pooling: Pooling) -> Numbers:
    """How much each token counts in its sequence's vector."""
    counted = positions >= skip[sequence]
    rest = (lengths - skip)[sequence]
    shares: Numbers
    match pooling:
        case "mean":
            shares = counted / rest
        case "mean_sqrt_len_tokens":
            shares = counted / np.sqrt(rest)
        case "cls":
            shares = positions == skip[sequence]
        case "lasttoken":
            shares = positions == lengths[sequence] - 1
        case "weightedmean":
            ramp = counted * (positions + 1)
            shares = ramp / np.bincount(sequence, ramp)[sequence]
    return shares
