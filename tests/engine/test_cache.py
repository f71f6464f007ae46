"""Answers that are known, and answers that are being computed for somebody else."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.fakes import FATES, Fake, Item, Json, Script, World, outcome, ticks
from tests.engine.virtual import virtual

from maru.engine.cache import OVERHEAD_BYTES, Cache, Entry
from maru.engine.errors import (
    DeadlineExceeded,
    EngineError,
    InputError,
    ModelFailed,
    ModelLoadFailed,
    OutOfMemory,
    QueueFull,
)
from maru.engine.events import CacheLookedUp, Events
from maru.engine.model import ModelSpec
from maru.engine.types import Limits, ModelRef, Request, Result

LIMITS = Limits(running=200, waiting=200, max_batch_size=200)
ERRORS: dict[str, type[Exception]] = {"memory": OutOfMemory, "invalid": InputError, "reject": InputError}

# The key

PART = st.text(max_size=4) | st.sampled_from(["", "a", "b", "ab", "a\0", "m@1", "predict", "\N{SNOWMAN}"])
PARTS = st.tuples(PART, PART, PART, PART, PART, st.binary(max_size=6))


def key(parts: tuple[str, str, str, str, str, bytes]) -> bytes:
    tenant, name, version, digest, operation, canonical = parts
    spec = ModelSpec(ModelRef(name, version, digest), lambda: pytest.fail("loaded"), codec=Json())
    request = Request(name, [None], 0.0, tenant=tenant, operation=operation, keys=[canonical])
    (digested,) = Entry(Cache(Events(), lambda: 0.0, 0, 0.0), spec, request)._digests()
    return digested


@settings(max_examples=1500, derandomize=True, deadline=None, database=None)
@given(PARTS, PARTS)
def test_keys_are_equal_exactly_when_all_their_parts_are(
    one: tuple[str, str, str, str, str, bytes], other: tuple[str, str, str, str, str, bytes]
) -> None:
    assert (key(one) == key(other)) == (one == other)


@settings(max_examples=1500, derandomize=True, deadline=None, database=None)
@given(PARTS, st.integers(0, 4), st.integers(-3, 3))
def test_no_character_can_move_from_one_part_to_the_next(
    parts: tuple[str, str, str, str, str, bytes], at: int, by: int
) -> None:
    """The ambiguity of keys that are joined: ("ab", "c") is not ("a", "bc"), nor is it ("ab", "", "c")."""
    moved: list[Any] = [*parts]
    left, right = moved[at], moved[at + 1]
    if isinstance(right, bytes):
        left = left.encode()
    both = left + right
    cut = max(0, min(len(both), len(left) + by))
    moved[at], moved[at + 1] = both[:cut], both[cut:]
    if isinstance(right, bytes):
        try:
            moved[at] = moved[at].decode()
        except UnicodeDecodeError:
            return
    assert (key(tuple(moved)) == key(parts)) == (tuple(moved) == parts)


@pytest.mark.parametrize("part", ["tenant", "model", "version", "digest", "operation", "input"])
@virtual
async def test_whoever_differs_in_one_part_is_answered_by_a_computation_of_its_own(part: str) -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        other = await world.serve("other", cached=True)
        await world.infer(world.request(1, cached=True))
        match part:
            case "tenant":
                await world.infer(world.request(1, cached=True, tenant="somebody else"))
            case "model":
                await world.infer(world.request(1, cached=True, model="other"))
            case "version":
                await world.engine.manager.swap(world.spec("m", "2", cached=True))
                await world.infer(world.request(1, cached=True))
            case "digest":
                spec = world.spec("m", "1", cached=True)
                await world.engine.manager.swap(replace(spec, ref=ModelRef("m", "1", "other bytes")))
                await world.infer(world.request(1, cached=True))
            case "operation":
                await world.infer(world.request(1, cached=True, operation="explain"))
            case "input":
                await world.infer(world.request(2, cached=True))
        assert sum(len(each.batches) for each in world.opened) == 2
        await world.infer(world.request(1, cached=True, model="other"))
        assert model in world.opened and other in world.opened


# What is kept


def cache(clock: Any = None, max_bytes: int = 4 * (OVERHEAD_BYTES + 10), ttl_s: float = 60.0) -> Cache:
    return Cache(Events(), clock or (lambda: 0.0), max_bytes, ttl_s)


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    kept = cache()
    for name in (b"a", b"b", b"c", b"d"):
        kept.put(name, bytes(10))
    assert kept.get(b"a") is not None
    kept.put(b"e", bytes(10))
    assert [kept.get(name) is not None for name in (b"a", b"b", b"c", b"d", b"e")] == [
        True,
        False,
        True,
        True,
        True,
    ]


def test_what_is_too_old_is_forgotten() -> None:
    now = [0.0]
    kept = cache(lambda: now[0])
    kept.put(b"a", b"value")
    now[0] = 59.9
    assert kept.get(b"a") == b"value"
    now[0] = 60.0
    assert kept.get(b"a") is None and kept.bytes == 0


def test_what_is_larger_than_the_cache_is_not_kept_and_pushes_nothing_out() -> None:
    kept = cache()
    kept.put(b"a", bytes(10))
    kept.put(b"b", bytes(100_000))
    assert kept.get(b"a") is not None and kept.get(b"b") is None


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 900), st.booleans()), max_size=30))
def test_the_bytes_kept_are_counted_right_and_bounded(moves: list[tuple[bytes, int, bool]]) -> None:
    now = [0.0]
    kept = cache(lambda: now[0], max_bytes=1500, ttl_s=10.0)
    for name, size, put in moves:
        now[0] += 1.0
        if put:
            kept.put(name, bytes(size))
        else:
            kept.get(name)
        assert kept.bytes == sum(len(value) + OVERHEAD_BYTES for _, value in kept._entries.values()) <= 1500


@virtual
async def test_a_second_request_is_a_hit_and_computes_nothing() -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        first = await world.infer(world.request(1, 2, cached=True))
        second = await world.infer(world.request(2, 1, cached=True))
        assert (first.cache, second.cache) == ("miss", "hit")
        assert second.outputs == first.outputs[::-1]
        assert model.batches == [[1], [2]] or model.batches == [[1, 2]]
        assert second.timings.compute_s == 0


@virtual
async def test_of_a_list_only_what_is_unknown_is_computed() -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        await world.infer(world.request(1, 3, 5, cached=True))
        model.batches.clear()
        result = await world.infer(world.request(1, 2, 3, 4, 5, cached=True))
        assert [output[3] for output in result.outputs] == [1, 2, 3, 4, 5]
        assert sorted(item for batch in model.batches for item in batch) == [2, 4]
        assert result.cache == "miss"
        lookup = world.seen(CacheLookedUp)[-1]
        assert (lookup.hits, lookup.shared, lookup.misses) == (3, 0, 2)


@virtual
async def test_without_keys_or_without_a_codec_nothing_is_cached() -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        plain = await world.serve("plain")
        for _ in range(2):
            assert (await world.infer(world.request(1))).cache == "miss"
            assert (await world.infer(world.request(1, cached=True, model="plain"))).cache == "miss"
        assert len(model.batches) == len(plain.batches) == 2


@virtual
async def test_a_hit_needs_neither_a_slot_nor_a_loaded_model() -> None:
    async with World(Limits(running=1, waiting=0)) as world:
        model = await world.serve(cached=True)
        await world.infer(world.request(1, cached=True))
        busy = world.ask(2)
        await ticks(5)
        assert (await world.infer(world.request(1, cached=True))).cache == "hit"
        await busy
        assert await world.engine.manager.unload(model.ref)
        assert (await world.infer(world.request(1, cached=True))).cache == "hit"


@pytest.mark.parametrize("fate", FATES)
@virtual
async def test_an_error_is_never_cached(fate: str) -> None:
    async with World(LIMITS) as world:
        await world.serve(cached=True)
        for _ in range(2):
            with pytest.raises(ERRORS.get(fate, ModelFailed)):
                await world.infer(world.request(Item(1, fate), cached=True))
        assert not world.engine.cache.bytes
        assert (await world.infer(world.request(Item(1), cached=True))).cache == "miss"


# What is being computed


@virtual
async def test_a_hundred_who_ask_at_once_are_answered_by_one_computation() -> None:
    async with World(Limits(running=1, waiting=0)) as world:
        model = await world.serve(cached=True)
        results = await asyncio.gather(*(world.ask(1, cached=True) for _ in range(100)))
        assert model.batches == [[1]]
        assert {result.outputs[0] for result in results} == {("m", "1", model.nonce, 1)}
        assert sorted(result.cache for result in results) == ["miss"] + ["shared"] * 99


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
@virtual
async def test_a_leader_that_leaves_hands_over(how: str) -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        leader = world.ask(1, cached=True, deadline_s=0.5 if how == "deadline" else 30)
        await ticks(3)
        followers = [world.ask(1, cached=True) for _ in range(5)]
        await asyncio.sleep(0.5)
        if how == "cancelled":
            leader.cancel()
        results = await asyncio.gather(*followers)
        assert outcome(leader) == "cancelled" or isinstance(outcome(leader), DeadlineExceeded)
        assert len(model.batches) == 2, "the one that was stopped and the one that took over"
        assert {result.outputs[0] for result in results} == {("m", "1", model.nonce, 1)}


@virtual
async def test_leaders_that_leave_one_after_another_hand_over_each_time() -> None:
    async with World(LIMITS) as world:
        await world.serve(cached=True)
        tasks = [world.ask(1, cached=True) for _ in range(10)]
        for task in tasks[:-1]:
            await asyncio.sleep(0.3)
            task.cancel()
        assert (await tasks[-1]).outputs[0][3] == 1


@virtual
async def test_a_leader_that_is_refused_takes_nobody_with_it() -> None:
    """What befell the leader's request is not about the input: each follower has its own try."""
    async with World(Limits(running=1, waiting=1)) as world:
        await world.serve(cached=True)
        busy = [world.ask(i) for i in (8, 9)]
        await ticks(5)
        leader = world.ask(1, cached=True)
        follower = world.ask(1, cached=True)
        await asyncio.wait([leader])
        assert isinstance(leader.exception(), QueueFull)
        await asyncio.wait([follower])
        assert isinstance(follower.exception(), QueueFull)
        await asyncio.gather(*busy)


@pytest.mark.parametrize("partial", [False, True])
@virtual
async def test_a_model_that_cannot_be_loaded_is_tried_once_for_all_who_ask_the_same(partial: bool) -> None:
    async with World(LIMITS) as world:
        script = Script(LIMITS, load_s=5.0, fails_to_load=OSError())
        world.engine.repository.add(world.spec(script=script, cached=True, on_demand=True))
        began = world.loop.time()
        tasks = [world.ask(1, cached=True, partial=partial) for _ in range(100)]
        await asyncio.wait(tasks)
        assert {type(task.exception()) for task in tasks} == {ModelLoadFailed}
        assert script.loads == 1 and world.loop.time() == began + 5


def test_however_many_leaders_leave_the_last_follower_is_answered() -> None:
    """None of the hand-overs in one follower's life may add to its stack."""

    @virtual
    async def story() -> None:
        async with World(Limits(running=1, waiting=0)) as world:
            model = await world.serve(cached=True, base_s=10.0)
            tasks = [world.ask(1, cached=True, deadline_s=5000) for _ in range(300)]
            for leader in tasks[:-1]:
                await ticks(6)
                leader.cancel()
            assert (await tasks[-1]).outputs[0][3] == 1
            assert len(model.batches) == 300

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        story()
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("fate", FATES)
@virtual
async def test_an_error_that_everyone_would_get_is_shared_and_not_computed_again(fate: str) -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        tasks = [world.ask(Item(1, fate), cached=True) for _ in range(20)]
        await asyncio.wait(tasks)
        assert {type(task.exception()) for task in tasks} == {ERRORS.get(fate, ModelFailed)}
        assert len(model.batches) <= 1


@pytest.mark.parametrize("fate", FATES)
@virtual
async def test_a_leaders_bad_item_is_no_followers_error(fate: str) -> None:
    async with World(LIMITS) as world:
        await world.serve(cached=True)
        leader = world.ask(Item(1), Item(2, fate), Item(3), cached=True)
        await ticks(3)
        follower = world.ask(1, 3, cached=True)
        await asyncio.wait([leader, follower])
        assert isinstance(leader.exception(), EngineError)
        assert [output[3] for output in follower.result().outputs] == [1, 3]


@virtual
async def test_the_same_input_twice_in_one_list_is_computed_once() -> None:
    async with World(LIMITS) as world:
        model = await world.serve(cached=True)
        result = await world.infer(world.request(1, 2, 1, 1, 2, cached=True))
        assert [output[3] for output in result.outputs] == [1, 2, 1, 1, 2]
        assert sorted(item for batch in model.batches for item in batch) == [1, 2]


@pytest.mark.parametrize("fate", FATES)
@virtual
async def test_the_same_bad_input_twice_in_one_list_fails_in_both_places(fate: str) -> None:
    async with World(LIMITS) as world:
        await world.serve(cached=True)
        bad = Item(7, fate)
        result = await world.infer(world.request(bad, 1, bad, cached=True, partial=True))
        assert [type(output) for output in result.outputs] == [
            ERRORS.get(fate, ModelFailed),
            tuple,
            type(result.outputs[0]),
        ]


@virtual
async def test_lists_that_lead_and_follow_one_another_end() -> None:
    async with World(Limits(running=1, waiting=40, max_batch_size=1)) as world:
        model = await world.serve(cached=True)
        orders = [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1, 3), (5, 1, 6), (6, 5, 4)]
        tasks = [world.ask(*order, cached=True) for order in orders]
        results = await asyncio.gather(*tasks)
        for order, result in zip(orders, results, strict=True):
            assert tuple(output[3] for output in result.outputs) == order
        assert sorted(item for batch in model.batches for item in batch) == [1, 2, 3, 4, 5, 6]


@virtual
async def test_lists_that_lead_one_another_end_whoever_leaves_and_whenever() -> None:
    for when in range(14):
        for who in range(3):
            async with World(Limits(running=1, waiting=40, max_batch_size=1)) as world:
                await world.serve(cached=True)
                orders = [(1, 2, 3), (3, 4, 1), (4, 2, 5)]
                tasks = [world.ask(*order, cached=True) for order in orders]
                await asyncio.sleep(when * 0.5)
                tasks[who].cancel()
                await asyncio.wait(tasks)
                for order, task in zip(orders, tasks, strict=True):
                    if not task.cancelled():
                        assert tuple(output[3] for output in task.result().outputs) == order


@virtual
async def test_nobody_shares_the_computation_of_another_tenant_or_version() -> None:
    async with World(LIMITS) as world:
        old = await world.serve(cached=True, base_s=5.0)
        tasks = [world.ask(1, cached=True), world.ask(1, cached=True, tenant="other")]
        await ticks(5)
        swap = asyncio.ensure_future(world.engine.manager.swap(world.spec("m", "2", cached=True)))
        await asyncio.sleep(2.0)
        tasks.append(world.ask(1, cached=True))
        results = await asyncio.gather(*tasks)
        assert [result.outputs[0][1] for result in results] == ["1", "1", "2"]
        assert sum(len(batch) for batch in old.batches) == 2
        await swap


# The second level


class Shared:
    """A second level that two engines share."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.delay_s = delay_s
        self.asked = 0
        self.ttls: set[float] = set()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked += len(keys)
        await asyncio.sleep(self.delay_s)
        return [self.kept.get(key) for key in keys]

    async def put_many(self, items: Mapping[bytes, bytes], ttl_s: float) -> None:
        await asyncio.sleep(self.delay_s)
        self.ttls.add(ttl_s)
        self.kept.update(items)


async def twice(store: Any) -> tuple[list[Result], list[Fake]]:
    """The same request to two engines that share a store, one after the other."""
    results, models = [], []
    for _ in range(2):
        async with World(LIMITS, result_store=store) as world:
            models.append(await world.serve(cached=True))
            results.append(await world.infer(world.request(1, 2, cached=True)))
            await asyncio.sleep(1.0)
    return results, models


@virtual
async def test_what_another_process_computed_is_a_hit() -> None:
    store = Shared()
    (first, second), (_, idle) = await twice(store)
    assert (first.cache, second.cache) == ("miss", "hit")
    assert second.outputs == first.outputs and not idle.batches
    assert store.ttls == {3600.0}


@virtual
async def test_what_is_known_here_is_not_asked_of_the_second_level() -> None:
    store = Shared()
    async with World(LIMITS, result_store=store) as world:
        await world.serve(cached=True)
        for _ in range(3):
            await world.infer(world.request(1, cached=True))
        assert store.asked == 1


@virtual
async def test_corrupt_and_foreign_entries_are_misses_and_are_replaced() -> None:
    store = Shared()
    await twice(store)
    for kept, rubbish in zip(store.kept, (b"\xff\x00", b'{"another": "application"}'), strict=True):
        store.kept[kept] = rubbish
    (first, second), (model, _) = await twice(store)
    assert (first.cache, second.cache) == ("miss", "hit")
    assert [output[2] for output in first.outputs] == [model.nonce] * 2


@virtual
async def test_a_slow_second_level_does_not_delay_what_is_stored() -> None:
    async with World(LIMITS, result_store=Shared(delay_s=0.5)) as world:
        await world.serve(cached=True)
        began = world.loop.time()
        await world.infer(world.request(1, cached=True))
        assert world.loop.time() == began + 0.5 + 1, "the read is waited for, the write is not"


@virtual
async def test_a_second_level_that_hangs_is_bounded_by_the_deadline() -> None:
    async with World(LIMITS, result_store=Shared(delay_s=500.0)) as world:
        await world.serve(cached=True)
        with pytest.raises(DeadlineExceeded):
            await world.infer(world.request(1, cached=True, deadline_s=3.0))


@virtual
async def test_a_second_level_that_hangs_collects_no_writes_without_bound() -> None:
    class Hangs(Shared):
        async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            return [None] * len(keys)

    async with World(LIMITS, result_store=Hangs(delay_s=500.0)) as world:
        await world.serve(cached=True, base_s=0.0)
        for i in range(300):
            await world.infer(world.request(i, cached=True))
        assert len(world.engine.cache._writes) <= 64


class Broken(Shared):
    """Breaks the promise of its protocol."""

    def __init__(self, answer: list[bytes | None] | None) -> None:
        super().__init__()
        self.answer = answer

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self.answer is None:
            raise ConnectionError
        return self.answer

    async def put_many(self, items: Mapping[bytes, bytes], ttl_s: float) -> None:
        raise ConnectionError


@pytest.mark.parametrize("answer", [None, [], [None], [None] * 9], ids=["raises", "nothing", "too few", "too many"])
@virtual
async def test_a_second_level_that_fails_is_a_miss(answer: list[bytes | None] | None) -> None:
    (first, second), _ = await twice(Broken(answer))
    assert (first.cache, second.cache) == ("miss", "miss")
