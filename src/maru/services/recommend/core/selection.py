"""The heaviest few of many, in an order that does not depend on the order they came in."""

from __future__ import annotations

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.events import Floats, Int32s


@compiled
def _weaker(weight: Floats, a: int, b: int) -> bool:
    return bool(weight[a] < weight[b] or (weight[a] == weight[b] and a > b))


@compiled
def _sink(weight: Floats, heap: Int32s, size: int) -> None:
    """Let the root of a heap, whose weakest member is to be at the root, sink to its place."""
    moved, at = heap[0], 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _weaker(weight, heap[child + 1], heap[child]):
            child += 1
        if not _weaker(weight, heap[child], moved):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved


@compiled
def strongest(weight: Floats, ids: Int32s, count: int, keep: int, out: Int32s) -> int:
    """Of ids[:count], the `keep` with the most weight[id] into `out`, heaviest first; equals by the lower id.

    `ids` are distinct. Gives how many there are.
    """
    size = 0
    for i in range(count):
        new = ids[i]
        if size < keep:
            at = size
            size += 1
            while at > 0:
                parent = (at - 1) // 2
                if not _weaker(weight, new, out[parent]):
                    break
                out[at] = out[parent]
                at = parent
            out[at] = new
        elif _weaker(weight, out[0], new):
            out[0] = new
            _sink(weight, out, size)
    for last in range(size - 1, 0, -1):
        weakest = out[0]
        out[0] = out[last]
        _sink(weight, out, last)
        out[last] = weakest
    return size
