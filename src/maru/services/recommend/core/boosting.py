"""How the trees of a ranker are trained. The only place that knows LightGBM."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from maru.services.recommend.core.events import TYPES
from maru.services.recommend.core.examples import Examples, Flags
from maru.services.recommend.core.features import FEATURE_NAMES


@dataclass(frozen=True, slots=True)
class RankerOptions:
    """At most so many trees of so many leaves; `patience` trees without a gain on the last `held` part of the visits
    end the training."""

    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.05
    patience: int = 20
    held: float = 0.2
    threads: int = 1
    seed: int = 0


def train_ranker(
    examples: Examples,
    objective: int,
    options: RankerOptions = RankerOptions(),
    progress: Callable[[float], None] | None = None,
) -> str:
    """Trees for one of `TYPES` by its number, in LightGBM's text format. What they sum to is calibrated: the log-odds
    among all candidates, and not only those that were drawn.

    The same examples and options give the same trees. ValueError when there is nothing to tell apart.
    """
    import lightgbm

    rows = examples.labels[:, objective] | examples.drawn
    late = examples.visit >= examples.visits * (1 - options.held)
    early, held = rows & ~late, rows & late
    if not _both(examples, objective, held):
        # Nothing to see the gain by: the trees are all grown, from everything.
        early, held = rows, np.zeros_like(rows)
    if not _both(examples, objective, early):
        raise ValueError(f"the {TYPES[objective]} to learn from are none, or all")
    train = _dataset(lightgbm, examples, objective, early, None)
    heard: list[Any] = []
    if progress is not None:
        heard.append(lambda env: progress((env.iteration + 1) / options.trees))
    if held.any():
        heard.append(lightgbm.early_stopping(options.patience, verbose=False))
    booster = lightgbm.train(
        _parameters(options),
        train,
        options.trees,
        valid_sets=[_dataset(lightgbm, examples, objective, held, train)] if held.any() else None,
        callbacks=heard,
    )
    _shift(booster, math.log(examples.rate))
    text: str = booster.model_to_string(num_iteration=booster.best_iteration if held.any() else -1)
    return text


def _both(examples: Examples, objective: int, rows: Flags) -> bool:
    labels = examples.labels[rows, objective]
    return bool(labels.any() and not labels.all())


def _dataset(lightgbm: Any, examples: Examples, objective: int, rows: Flags, reference: Any) -> Any:
    return lightgbm.Dataset(
        examples.features[rows],
        examples.labels[rows, objective].astype(np.float32),
        reference=reference,
        feature_name=list(FEATURE_NAMES),
        params={"verbosity": -1, "max_bin": 127, "use_missing": False, "feature_pre_filter": False},
        free_raw_data=True,
    )


def _parameters(options: RankerOptions) -> dict[str, Any]:
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": options.leaves,
        "learning_rate": options.learning_rate,
        "min_data_in_leaf": 60,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 10.0,
        "max_bin": 127,
        "use_missing": False,
        "num_threads": options.threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": options.seed,
        "verbosity": -1,
    }


def _shift(booster: Any, by: float) -> None:
    """Add to every sum, by way of the first tree: so the file needs no note beside it, and any reader is calibrated."""
    for leaf in range(booster.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"]):
        booster.set_leaf_output(0, leaf, booster.get_leaf_output(0, leaf) + by)
