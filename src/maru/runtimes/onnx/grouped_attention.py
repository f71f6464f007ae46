"""Attention with fewer key heads than query heads, from plain operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from maru.runtimes.onnx.assembly import Assembly

HIDDEN = -1e9
"""Added to the score of what a token must not see."""


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """`heads` query heads of `size`, in `groups` that share keys and values. Scores are times `scale`."""

    heads: int
    groups: int
    size: int
    scale: float

    def __call__(self, a: Assembly, queries: str, keys: str, values: str, mask: str) -> str:
        """Mixed values, [T, heads · size], of packed rows that hold their heads side by side.

        The queries of one group are rows of one product, so keys and values are never repeated.
        """
        graph, each = a.graph, self.heads // self.groups
        q = a.op("Mul", self._by_group(a, queries, each), graph.constant(self.scale, np.float32))
        k = a.op("Transpose", self._by_group(a, keys, 1), perm=[0, 1, 3, 2])
        scores = a.op("MatMul", q, k)  # [B, groups, S · each, S]
        shape, longest = a.op("Shape", scores), a.op("Shape", scores, start=3)
        by_query = a.op("Concat", graph.ints(0, self.groups, -1, each), longest, axis=0)
        shares = a.op("Softmax", a.op("Add", a.op("Reshape", scores, by_query), mask), axis=-1)
        mixed = a.op("MatMul", a.op("Reshape", shares, shape), self._by_group(a, values, 1))
        mixed = a.op("Reshape", mixed, graph.ints(0, self.groups, -1, each, self.size))
        by_position = a.op("Transpose", mixed, perm=[0, 2, 1, 3, 4])  # [B, S, groups, each, size]
        return a.unpad(by_position, self.heads * self.size)

    def _by_group(self, a: Assembly, rows: str, each: int) -> str:
        """[T, groups · each · size] to [B, groups, S · each, size]."""
        apart = a.op("Reshape", a.pad(rows), a.graph.ints(0, 0, self.groups, each, self.size))
        grouped = a.op("Transpose", apart, perm=[0, 2, 1, 3, 4])
        return a.op("Reshape", grouped, a.graph.ints(0, self.groups, -1, self.size))


def full_mask(a: Assembly) -> str:
    """Hides padding: [B, 1, 1, 1, S]."""
    return _hiding(a, a.op("Unsqueeze", _present(a), a.graph.ints(1, 2, 3)))


def sliding_mask(a: Assembly, reach: int) -> str:
    """Hides padding, and what is `reach` or more tokens away: [B, 1, S, 1, S]."""
    columns = _columns(a)
    distance = a.op("Abs", a.op("Sub", a.op("Unsqueeze", columns, a.graph.ints(1)), columns))
    near = a.op("Less", distance, a.graph.constant(reach, np.int64))
    seen = a.op("And", near, a.op("Unsqueeze", _present(a), a.graph.ints(1)))
    return _hiding(a, a.op("Unsqueeze", seen, a.graph.ints(1, 3)))


def _columns(a: Assembly) -> str:
    zero, one = a.graph.constant(0, np.int64), a.graph.constant(1, np.int64)
    return a.op("Range", zero, a.op("Squeeze", a.op("Shape", a.inputs.side_by_side, start=1)), one)


def _present(a: Assembly) -> str:
    """Which positions are not padding: [B, S]."""
    lengths = a.op("Cast", a.inputs.lengths, to=TensorProto.INT64)
    return a.op("Less", _columns(a), a.op("Unsqueeze", lengths, a.graph.ints(1)))


def _hiding(a: Assembly, seen: str) -> str:
    return a.op("Where", seen, a.graph.constant(0, np.float32), a.graph.constant(HIDDEN, np.float32))
