"""Boosted trees from LightGBM's text format, and a walk through them that gives LightGBM's own sums bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.events import Floats, Int32s

Doubles = NDArray[np.float64]

TOGETHER = 128
"""Rows that go through a tree side by side, step by step, as vector instructions can."""


@dataclass(frozen=True, slots=True)
class Forest:
    """The nodes of all trees, one behind the other, the two children of a node side by side.

    A row stands at node i and goes to `child[i]` when its `feature[i]` is at most `threshold[i]`, and to the node
    behind that otherwise. A leaf leads to itself, so that all rows take `depth[t]` steps from `root[t]` and need not
    ask whether they have arrived.
    """

    features: tuple[str, ...]
    root: Int32s
    depth: Int32s
    feature: Int32s
    threshold: Floats
    child: Int32s
    value: Doubles

    @classmethod
    def parse(cls, text: str) -> Forest:
        """ValueError for what is no such model, or one with categorical or linear trees, or that knows of missing
        values."""
        head, *blocks = text.split("\nTree=")
        names = _fields(head).get("feature_names")
        if not head.startswith("tree\n") or names is None:
            raise ValueError("this is not a model in LightGBM's text format")
        if _fields(head).get("objective", "").split() != ["binary", "sigmoid:1"]:
            raise ValueError("the model was not trained for probabilities")
        parts = _Nodes()
        for block in blocks:
            try:
                parts.add(_fields(block.partition("\n\n")[0]), len(names.split()))
            except (KeyError, IndexError) as error:
                raise ValueError("the model has a broken tree") from error
        return cls(tuple(names.split()), *parts.arrays())


def predict(rows: Floats, forest: Forest) -> Floats:
    """float32 [n]: the probabilities of float32 [n, features] finite figures."""
    out = np.empty(len(rows), np.float32)
    sums = np.empty(len(rows), np.float64)
    _walk(rows, forest.root, forest.depth, forest.feature, forest.threshold, forest.child, forest.value, sums, out)
    return out


def sums(rows: Floats, forest: Forest) -> Doubles:
    """float64 [n]: the log-odds, the sums of the trees in their order."""
    out = np.empty(len(rows), np.float64)
    probabilities = np.empty(len(rows), np.float32)
    _walk(
        rows,
        forest.root,
        forest.depth,
        forest.feature,
        forest.threshold,
        forest.child,
        forest.value,
        out,
        probabilities,
    )
    return out


@compiled
def _walk(
    rows: Floats,
    root: Int32s,
    depth: Int32s,
    feature: Int32s,
    threshold: Floats,
    child: Int32s,
    value: Doubles,
    sums: Doubles,
    out: Floats,
) -> None:
    turned = np.empty(rows.shape[1] * TOGETHER, np.float32)
    at = np.empty(TOGETHER, np.int32)
    for start in range(0, rows.shape[0], TOGETHER):
        count = min(TOGETHER, rows.shape[0] - start)
        # Feature by feature, so that rows that stand at one node read what lies side by side.
        for row in range(count):
            sums[start + row] = 0.0
            for f in range(rows.shape[1]):
                turned[f * TOGETHER + row] = rows[start + row, f]
        for tree in range(root.size):
            for row in range(count):
                at[row] = root[tree]
            for _ in range(depth[tree]):
                for row in range(count):
                    # Unsigned, as the compiler would provide for places counted from the end.
                    node = np.uint32(at[row])
                    figure = turned[np.uint32(feature[node] * TOGETHER + row)]
                    at[row] = child[node] + np.int32(figure > threshold[node])
            for row in range(count):
                sums[start + row] += value[np.uint32(at[row])]
        for row in range(start, start + count):
            out[row] = 1.0 / (1.0 + np.exp(-sums[row]))


class _Nodes:
    """The arrays of a forest while its trees are read."""

    def __init__(self) -> None:
        self._root: list[int] = []
        self._depth: list[int] = []
        self._feature: list[int] = []
        self._threshold: list[float] = []
        self._child: list[int] = []
        self._value: list[float] = []

    def add(self, tree: dict[str, str], features: int) -> None:
        if tree.get("num_cat", "0") != "0" or tree.get("is_linear", "0") != "0":
            raise ValueError("the model has categorical or linear trees")
        values = [float(value) for value in tree["leaf_value"].split()]
        self._root.append(self._new())
        if int(tree["num_leaves"]) == 1:
            self._value[self._root[-1]] = values[0]
            self._depth.append(0)
            return
        split, left, right, decisions = (
            [int(number) for number in tree[key].split()]
            for key in ("split_feature", "left_child", "right_child", "decision_type")
        )
        if any(decision & 0b1101 for decision in decisions) or not all(0 <= at < features for at in split):
            raise ValueError("the model's trees are not of plain numeric splits")
        thresholds = [float(threshold) for threshold in tree["threshold"].split()]
        waiting, deepest = [(0, self._root[-1], 0)], 0
        while waiting:
            number, place, level = waiting.pop()
            deepest = max(deepest, level)
            if number < 0:
                self._value[place] = values[~number]
                continue
            self._feature[place], self._threshold[place] = split[number], thresholds[number]
            first, second = self._new(), self._new()
            self._child[place] = first
            waiting += [(right[number], second, level + 1), (left[number], first, level + 1)]
            if len(self._child) - self._root[-1] > 2 * len(values):
                raise ValueError("the model has a tree that leads back into itself")
        self._depth.append(deepest)

    def _new(self) -> int:
        """A leaf."""
        self._feature.append(0)
        self._threshold.append(np.inf)
        self._child.append(len(self._child))
        self._value.append(0.0)
        return len(self._child) - 1

    def arrays(self) -> tuple[Int32s, Int32s, Int32s, Floats, Int32s, Doubles]:
        return (
            np.array(self._root, np.int32),
            np.array(self._depth, np.int32),
            np.array(self._feature, np.int32),
            _rounded_down(np.array(self._threshold, np.float64)),
            np.array(self._child, np.int32),
            np.array(self._value, np.float64),
        )


def _rounded_down(thresholds: Doubles) -> Floats:
    """The largest float32 that is not above: a float32 is at most the one exactly when it is at most the other."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
