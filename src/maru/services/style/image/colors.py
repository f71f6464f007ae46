"""The colours that a picture is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from maru.services.style.image.lab import Colors, lab, srgb

NEAR = 8.0
"""Colours less than this apart (ΔE, CIE 1976) are one to somebody who looks at a room."""
MORE = 3
"""How many clusters more are tried where some turn out to be one colour."""
BITS = 4
"""Of each channel, by which pixels are gathered before they are clustered. Their mean stays exact."""
ROUNDS = 30
STILL = 0.05
STARTS = 3

Shares = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Color:
    """`hex` is `#RRGGBB`; `share` is that of the picture's pixels which it is the nearest to, in [0, 1]."""

    hex: str
    share: float


def dominant_colors(pixels: np.ndarray[Any, np.dtype[np.uint8]], count: int) -> tuple[Color, ...]:
    """`count` colours, the one of the most pixels first, no two nearer than `NEAR`. Equal pixels, equal colours.

    Clusters in CIE Lab, whose centres are moved as k-means moves them, and then to their geometric medians: the mean
    colour error (ΔE), not its square, is what they make small. A picture of fewer colours than `count` gives fewer.
    """
    points, weights = _gathered(pixels)
    centers, masses = points[:0], weights[:0]
    for clusters in range(count, count + MORE + 1):
        centers, masses = _apart(*_clustered(points, weights, clusters))
        if len(centers) >= count or clusters >= len(points):
            break
    order = np.argsort(-masses, kind="stable")[:count]
    found = srgb(centers[order])
    return tuple(
        Color("#{:02X}{:02X}{:02X}".format(*rgb), round(float(share), 4))
        for rgb, share in zip(found.tolist(), masses[order], strict=True)
    )


def _gathered(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[Colors, Shares]:
    """The mean colour in Lab of pixels alike, and the share that they are of all."""
    flat = pixels.reshape(-1, 3)
    red, green, blue = (flat >> (8 - BITS)).astype(np.int32).T
    codes = (red << 2 * BITS) | (green << BITS) | blue
    counts = np.bincount(codes, minlength=1 << 3 * BITS)
    there = np.flatnonzero(counts)
    sums = np.stack([np.bincount(codes, flat[:, channel], 1 << 3 * BITS)[there] for channel in range(3)], axis=1)
    kept = counts[there]
    return lab(sums / kept[:, None]), (kept / len(flat)).astype(np.float32)


def _clustered(points: Colors, weights: Shares, count: int) -> tuple[Colors, Shares]:
    """The best of some starts: centres, and the share of the picture that is nearest to each."""
    best: tuple[float, Colors, Shares] | None = None
    for start in range(STARTS):
        centers = _moved(points, weights, _spread(points, weights, count, start))
        distances, nearest = _nearest(points, centers)
        error = float(distances @ weights)
        if best is None or error < best[0] - 1e-6:
            best = error, centers, np.bincount(nearest, weights, len(centers)).astype(np.float32)
    assert best is not None
    return best[1], best[2]


def _spread(points: Colors, weights: Shares, count: int, start: int) -> Colors:
    """Points to begin with: one of the heaviest, then again and again that which is farthest for its weight."""
    chosen = [int(np.argsort(-weights, kind="stable")[min(start, len(points) - 1)])]
    distances = np.full(len(points), np.inf, np.float32)
    while len(chosen) < min(count, len(points)):
        np.minimum(distances, _distances(points, points[chosen[-1:]])[:, 0], out=distances)
        chosen.append(int(np.argmax(distances**2 * weights)))
    return points[chosen]


def _moved(points: Colors, weights: Shares, centers: Colors) -> Colors:
    """Lloyd's rounds, then Weiszfeld's."""
    for median in (False, True):
        for _ in range(ROUNDS):
            distances, nearest = _nearest(points, centers)
            pull = weights / np.maximum(distances, 0.5) if median else weights
            mass = np.bincount(nearest, pull, len(centers))
            sums = np.stack([np.bincount(nearest, pull * axis, len(centers)) for axis in points.T], axis=1)
            fresh = np.where(mass[:, None] > 0, sums / np.maximum(mass, 1e-12)[:, None], centers).astype(np.float32)
            moved = float(np.abs(fresh - centers).max())
            centers = fresh
            if moved < STILL:
                break
    return centers


def _apart(centers: Colors, masses: Shares) -> tuple[Colors, Shares]:
    """The nearest two made one, by their shares, until none are near. Empty clusters are left out."""
    centers, masses = centers[masses > 0], masses[masses > 0]
    while len(centers) > 1:
        distances = _distances(centers, centers)
        np.fill_diagonal(distances, np.inf)
        one, other = sorted(divmod(int(distances.argmin()), len(centers)))
        if distances[one, other] >= NEAR:
            break
        mass = masses[one] + masses[other]
        centers[one] = (centers[one] * masses[one] + centers[other] * masses[other]) / mass
        masses[one] = mass
        centers, masses = np.delete(centers, other, axis=0), np.delete(masses, other)
    return centers, masses


def _nearest(points: Colors, centers: Colors) -> tuple[Shares, np.ndarray[Any, Any]]:
    distances = _distances(points, centers)
    nearest = distances.argmin(axis=1)
    return distances[np.arange(len(points)), nearest], nearest


def _distances(points: Colors, centers: Colors) -> Shares:
    squares = sum((points[:, None, axis] - centers[None, :, axis]) ** 2 for axis in range(3))
    return np.sqrt(squares)
