"""Vectors in lists by their nearest centre, so that a few lists are searched and not the whole catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.events import Floats, Int8s, Int32s, Int64s

WHOLE = 16_384
"""Up to so many items, one list: the search is exact."""

PROBES = 32
"""How many lists are searched."""

_ROUNDS = 8
_SAMPLED = 64  # vectors a centre, of which the centres are made
_CHUNK = 8_192


@dataclass(frozen=True, slots=True)
class Lists:
    """`centres` float32 [lists, 128]; `items[starts[i]:starts[i + 1]]` int32 are the items of list i, those without a
    vector in none; `small` int8 [len(items), 128] their vectors, each scaled by `scales` float32 to fill a byte."""

    centres: Floats
    starts: Int64s
    items: Int32s
    small: Int8s
    scales: Floats

    @classmethod
    def of(cls, embedding: Floats, seed: int) -> Lists:
        placed = np.flatnonzero((embedding != 0).any(axis=1)).astype(np.int32)
        vectors = embedding[placed]
        centres = _centres(vectors, seed)
        nearest = _assigned(vectors, centres)
        order = np.argsort(nearest, kind="stable")
        starts = np.zeros(len(centres) + 1, np.int64)
        np.cumsum(np.bincount(nearest, minlength=len(centres)), out=starts[1:])
        most = np.abs(vectors).max(axis=1, initial=0)[order]
        small = np.rint(vectors[order] * (127 / np.maximum(most, 1e-9))[:, None]).astype(np.int8)
        return cls(centres, starts, placed[order], small, (most / 127).astype(np.float32))


def _centres(vectors: Floats, seed: int) -> Floats:
    count = 1 if len(vectors) <= WHOLE else round(1.3 * math.sqrt(len(vectors)))
    if count == 1:
        return np.zeros((1, vectors.shape[1]), np.float32)
    random = np.random.default_rng(seed)
    sample = vectors[random.choice(len(vectors), min(len(vectors), count * _SAMPLED), replace=False)]
    centres = sample[:count].copy()
    for _ in range(_ROUNDS):
        nearest = _assigned(sample, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centre that nothing is near to stays where it is.
        centres = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), centres)
    return centres


def _assigned(vectors: Floats, centres: Floats) -> NDArray[np.int64]:
    """The nearest centre of each vector."""
    chunks = [(vectors[at : at + _CHUNK] @ centres.T).argmax(axis=1) for at in range(0, len(vectors), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int64)
