from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from maru.services.llm.benchmarks.plan import Level, Objectives
from maru.services.llm.benchmarks.schemas import (
    DEADLINE_S,
    DEFAULT_PROMPTS,
    MAX_OUTPUT,
    MAX_REQUESTS,
    BenchmarkConfig,
    BenchmarkRunRequest,
)


def config(**given: Any) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate(given)


def test_the_documents_defaults() -> None:
    plan = config().plan()
    assert [prompt.text for prompt in plan.prompts] == list(DEFAULT_PROMPTS)
    assert (plan.warmups, plan.warmup.text) == (3, "Hello, world!")
    assert plan.levels == (Level(2, concurrency=1),)
    assert plan.deadline_s == DEADLINE_S
    assert all(not prompt.reuse for prompt in (*plan.prompts, plan.warmup)), "a cache would be measured, not the model"


def test_what_is_asked_of_the_model() -> None:
    plan = config(max_tokens=7, temperature=0.5, seed=3, fixed_length=True, reuse_cache=True).plan()
    sampling = plan.prompts[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed, sampling.ignore_eos) == (7, 0.5, 3, True)
    assert plan.prompts[0].reuse and not plan.warmup.reuse


def test_each_concurrency_is_a_level_with_a_request_for_each_client_at_least() -> None:
    plan = config(concurrency=[1, 4, 16], num_iterations=3).plan()
    assert plan.levels == (Level(6, 1), Level(6, 4), Level(16, 16))


def test_rates_are_open_loops() -> None:
    (level,) = config(rate=2.5, num_iterations=5).plan().levels
    assert (level.rate, level.arrivals, level.requests) == (2.5, "poisson", 10)
    levels = config(rate=[1.0, 2.0], arrivals="constant").plan().levels
    assert [(level.rate, level.arrivals) for level in levels] == [(1.0, "constant"), (2.0, "constant")]


def test_a_sweep_begins_with_the_clients() -> None:
    plan = config(sweep=3, concurrency=8, rate=5.0).plan()
    assert plan.sweep == 3 and plan.levels == (Level(8, 8),)


def test_goals() -> None:
    assert config(objectives={"ttft_s": 0.5, "e2e_s": 3.0}).plan().objectives == Objectives(0.5, None, 3.0)
    assert not config().plan().objectives


def test_it_is_stored_and_read_again_alike() -> None:
    given = config(test_prompts=["한글 🙂"], concurrency=[1, 2], rate=None, objectives={"tpot_s": 0.1}, repetitions=2)
    assert BenchmarkConfig.model_validate(given.model_dump(mode="json")) == given


@pytest.mark.parametrize(
    "given",
    [
        {"num_iterations": 100, "test_prompts": ["a"] * 20, "repetitions": 1, "max_tokens": 1, "concurrency": [1, 2]},
        {"num_iterations": 100, "test_prompts": ["a"] * 10, "max_tokens": 512},
        {"sweep": 6, "num_iterations": 100, "test_prompts": ["a"] * 3, "max_tokens": 8},
    ],
)
def test_all_levels_of_a_run_are_bounded_together(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="more than"):
        config(**given)


def test_the_most_that_is_taken() -> None:
    most = config(num_iterations=100, test_prompts=["a"] * 20, max_tokens=128)
    (level,) = most.levels()
    assert level.requests == MAX_REQUESTS and level.requests * 128 <= MAX_OUTPUT


def test_prompts_beside_the_configuration_are_held_to_its_bounds() -> None:
    taken = BenchmarkRunRequest(model_id="m", test_prompts=["x"], config=config(max_tokens=512, num_iterations=100))
    assert taken.configured().test_prompts == ["x"] and taken.configured().max_tokens == 512
    with pytest.raises(ValidationError, match="more than"):
        BenchmarkRunRequest(
            model_id="m", test_prompts=["x"] * 20, config=config(max_tokens=512, num_iterations=100, test_prompts=["y"])
        )
