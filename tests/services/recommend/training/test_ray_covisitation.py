"""Co-visitation by ranges of items, wherever they run: the same bits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maru.services.recommend.core.covisitation import Occurrences, Pairs, in_threads
from maru.services.recommend.core.features import KINDS
from maru.services.recommend.training import ray_covisitation
from maru.services.recommend.training.errors import RayUnavailable
from maru.services.recommend.training.simulate import simulate

SEEN = "MARU_TEST_NODES"


def test_without_ray_a_person_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayUnavailable, match=r'pip install "maru\[ray\]"'), ray_covisitation.on_ray():
        raise AssertionError


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes on this machine, each with a processor and a store of its own."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(SEEN, str(tmp_path))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        cluster.shutdown()


def noted(*range: Any) -> Pairs:
    """The task, which also notes where it ran."""
    import ray

    (Path(os.environ[SEEN]) / ray.get_runtime_context().get_node_id()).touch()
    return task(*range)


task = ray_covisitation._range


@pytest.mark.slow
def test_two_nodes_give_the_same_bits(two_nodes, tmp_path, monkeypatch):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_covisitation, "_range", noted)
    occurrences = Occurrences.of(simulate(60_000, seed=7))
    told: list[float] = []
    with ray_covisitation.on_ray(two_nodes.address, told=lambda _, part: told.append(part)) as covisit:
        for kind in range(len(KINDS)):
            ids, weights = covisit(occurrences, kind, 50)
            same_ids, same_weights = in_threads(2)(occurrences, kind, 50)
            assert (ids == same_ids).all() and weights.tobytes() == same_weights.tobytes()
            assert (ids >= 0).any()
    assert len(list(tmp_path.iterdir())) == 2, "both nodes had a part in it"
    assert told.count(1.0) == len(KINDS) and not ray.is_initialized()
