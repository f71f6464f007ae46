"""Items as vectors: the strongest directions of who is met with whom, more often than chance would have it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.compiling import compiled_for_sums
from maru.services.recommend.core.events import Floats, Int8s, Int32s
from maru.services.recommend.core.features import DIMENSIONS

FOLLOWERS = 100
"""How many of each item are worth looking at."""

SMOOTHING = 0.75
"""The power to which an item's share of all meetings is taken: below 1 it keeps rare items from seeming special."""

EXTRA = 16
"""Directions beside the wanted ones, which the randomized decomposition needs to find those well."""

ROUNDS = 3
"""Of power iteration."""

DECAY = 0.85
"""What an item of a session weighs, relative to the one that was seen after it."""


def embed(ids: Int32s, weights: Floats, seed: int, told: Callable[[float], None]) -> Floats:
    """float32 [items, 128], of length one; zeros for an item that was met with no other. From the followers of each
    item, as `covisitation` gives them.

    The positive pointwise mutual information of neighbours in sessions, and its randomized singular vectors.
    """
    items = len(ids)
    information = _information(ids, weights)
    vectors = np.zeros((items, DIMENSIONS), np.float32)
    wanted = min(DIMENSIONS, items)
    if information.nnz:
        vectors[:, :wanted] = _decomposed(information, wanted, seed, told)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # A vector without a length worth the name is rounding: the item is apart from all the directions that were found.
    return np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), 0).astype(np.float32)


def _information(ids: Int32s, weights: Floats) -> Any:
    """scipy's sparse matrix of the positive mutual information; float32 [items, items]."""
    from scipy import sparse

    items, keep = ids.shape
    met = ids.ravel() >= 0
    rows, columns = np.repeat(np.arange(items, dtype=np.int32), keep)[met], ids.ravel()[met]
    one_way = sparse.csr_matrix((weights.ravel()[met].astype(np.float64), (rows, columns)), shape=(items, items))
    both = (one_way + one_way.T).tocoo()
    sums = np.asarray(both.sum(axis=1)).ravel()
    chance = sums**SMOOTHING
    chance /= max(chance.sum(), 1e-12)
    information = np.log(both.data / sums[both.row] / chance[both.col])
    kept = information > 0
    found = (information[kept].astype(np.float32), (both.row[kept], both.col[kept]))
    return sparse.csr_matrix(found, shape=(items, items))


def _decomposed(matrix: Any, wanted: int, seed: int, told: Callable[[float], None]) -> Floats:
    """The left singular vectors, each times the root of its value; float32 [items, wanted]."""
    items = matrix.shape[0]
    turned = matrix.T.tocsr()
    random = np.random.default_rng(seed)
    basis = matrix @ random.standard_normal((items, min(items, wanted + EXTRA)), dtype=np.float32)
    for done in range(ROUNDS):
        basis = matrix @ (turned @ _orthonormal(basis))
        told((done + 1) / (ROUNDS + 1))
    basis = _orthonormal(basis)
    small = turned @ basis
    # small.T = left @ diag(values) @ right: its left vectors are those of a matrix of 144 by 144.
    squares, left = np.linalg.eigh((small.T @ small).astype(np.float64))
    left, values = left[:, ::-1][:, :wanted], np.sqrt(np.maximum(squares[::-1][:wanted], 0))
    # A vector and its opposite serve alike: the largest part is made positive, so that there is one answer.
    left = left * np.where(left[np.abs(left).argmax(axis=0), range(left.shape[1])] < 0, -1, 1)
    told(1.0)
    result: Floats = (basis @ (left * np.sqrt(values)).astype(np.float32)).astype(np.float32)
    return result


def _orthonormal(basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same span, by way of the small matrix of its products: far quicker than a QR of a tall matrix."""
    for _ in range(2):  # once more, for what rounding left
        squares, turn = np.linalg.eigh((basis.T @ basis).astype(np.float64))
        scale = np.where(squares > squares[-1] * 1e-10, 1 / np.sqrt(np.maximum(squares, 1e-30)), 0)
        basis = basis @ (turn * scale).astype(np.float32)
    return basis


@compiled_for_sums
def session_vector(embedding: Floats, items: Int32s, count: int, decay: float, out: Floats) -> None:
    """The direction of a session: its items' vectors, the first of items[:count] weighing most, at length one.

    Zeros when none of the items has a vector.
    """
    for d in range(out.size):
        out[d] = 0.0
    weight = 1.0
    for i in range(count):
        for d in range(out.size):
            out[d] += np.float32(weight) * embedding[items[i], d]
        weight *= decay
    unit(out)


@compiled_for_sums
def unit(vector: Floats) -> None:
    """Bring a vector to length one, where it has a length."""
    square = np.float32(0.0)
    for d in range(vector.size):
        square += vector[d] * vector[d]
    if square > 1e-12:
        scale = np.float32(1.0 / math.sqrt(square))
        for d in range(vector.size):
            vector[d] *= scale


@compiled_for_sums
def product(a: Floats, b: Floats) -> np.float32:
    """The inner product of two vectors."""
    total = np.float32(0.0)
    for d in range(DIMENSIONS):
        total += a[d] * b[d]
    return total


@compiled_for_sums
def small_product(small: Int8s, vector: Floats) -> np.float32:
    """The inner product of a vector with one whose parts are bytes."""
    total = np.float32(0.0)
    for d in range(DIMENSIONS):
        total += np.float32(small[d]) * vector[d]
    return total
