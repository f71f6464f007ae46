"""Twelve thousand random schedules of callers and operators: arrivals, lists, streams, cancels, deadlines,
failures, loads, swaps, evictions, unloads and drains, on random limits, in virtual time.

What must hold, after every step and at the end, is asserted by `fakes.World` and `schedule.Play`: no limit is
exceeded, no slot, lease, flight, queued item or task leaks, no model is used before it is warm or after it is
closed, no answer is another item's or another version's, no error is a neighbour's, nothing is answered by a
version after the swap that replaced it has returned, and every request ends once and is reported once.

Each example is a string of bytes that `Play` reads as decisions; hypothesis shortens a failing one.
"""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.engine.schedule import Dice, Play
from tests.engine.virtual import run_virtually

EACH = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def play(schedule: bytes) -> None:
    run_virtually(lambda: Play(Dice(schedule)).run())


@settings(EACH, max_examples=2500)
@given(st.binary(min_size=40, max_size=80))
def test_short_schedules(schedule: bytes) -> None:
    play(schedule)


@settings(EACH, max_examples=2000)
@given(st.binary(min_size=80, max_size=200))
def test_long_schedules(schedule: bytes) -> None:
    play(schedule)


@settings(EACH, max_examples=600)
@given(st.binary(min_size=200, max_size=400))
def test_longer_schedules(schedule: bytes) -> None:
    play(schedule)


@settings(EACH, max_examples=2500)
@given(st.integers(20, 250), st.randoms(use_true_random=False, note_method_calls=True))
def test_schedules_of_plain_dice(length: int, random: Random) -> None:
    """Hypothesis likes small numbers and repetitions; here every move is as likely as every other."""
    play(random.randbytes(length))
