"""From what a caller sends to what the recommender is asked: in order, nothing twice, and the same for the same."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from maru.services.recommend.core.events import TYPES, Int8s, Int64s
from maru.services.recommend.model import Asked, Choice
from maru.services.recommend.schemas import Event, Options

_NUMBERS = {name: number for number, name in enumerate(TYPES)}
_CHOICE = struct.Struct("<I?3d3q")


def choice(options: Options) -> Choice:
    """What a request's options mean."""
    weights = options.weights.shares()
    exclude = _ascending(options.exclude)
    include = None if options.include is None else _ascending(options.include)
    categories = None if options.categories is None else _ascending(options.categories)
    lists = (exclude, include, categories)
    sizes = [-1 if each is None else len(each) for each in lists]
    digest = hashlib.sha256(_CHOICE.pack(options.top_k, options.explain, *weights, *sizes))
    for each in lists:
        digest.update(b"" if each is None else each.tobytes())
    named = None if categories is None else tuple(categories.tolist())
    return Choice(options.top_k, weights, exclude, include, named, options.explain, digest.digest())


def ask(choice: Choice, aids: Int64s, ts: Int64s, types: Int8s | Int64s) -> Asked:
    """For a session that did this. Events of one second stay in the order in which they were sent."""
    order = np.argsort(ts, kind="stable")
    aids, ts, types = aids[order], ts[order], types[order].astype(np.int8)
    return Asked(aids, ts, types, choice, b"".join((choice.key, types.tobytes(), ts.tobytes(), aids.tobytes())))


def ask_for(choice: Choice, events: Iterable[Event]) -> Asked:
    """For a session as it is sent. An event that is there twice counts once."""
    once = dict.fromkeys((event["aid"], event["ts"], _NUMBERS[event["type"]]) for event in events)
    columns = np.array(list(once), np.int64).reshape(-1, 3)
    return ask(choice, columns[:, 0], columns[:, 1], columns[:, 2])


def _ascending(items: Sequence[int]) -> Int64s:
    return np.unique(np.array(items, np.int64))
