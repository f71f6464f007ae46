from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.onnx.graph_cache import GraphCache
from maru.runtimes.sentence_encoder import Encoder

IDS = [[2, 5, 6, 7, 3], [2, 9, 3]]


class Builder:
    """Writes two files, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, place: Path) -> None:
        self.times += 1
        (place / "graph").write_bytes(b"g" * 1000)
        (place / "data").write_bytes(b"d" * 5000)


def test_a_graph_is_built_once(tmp_path: Path) -> None:
    build = Builder()
    first = GraphCache(tmp_path / "new" / "cache").folder("key", build)
    again = GraphCache(tmp_path / "new" / "cache").folder("key", build)
    other = GraphCache(tmp_path / "new" / "cache").folder("../../key", build)
    assert first == again != other and build.times == 2
    assert other.parent == first.parent


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "removed", "no manifest", "bad manifest", "a file"])
def test_a_damaged_graph_is_built_again(damage: str, tmp_path: Path) -> None:
    build = Builder()
    place = GraphCache(tmp_path).folder("key", build)
    match damage:
        case "cut":
            (place / "data").write_bytes(b"d" * 4999)
        case "flipped":
            (place / "data").write_bytes(b"d" * 2500 + b"e" + b"d" * 2499)
        case "emptied":
            (place / "graph").write_bytes(b"")
        case "removed":
            (place / "graph").unlink()
        case "no manifest":
            (place / "manifest.json").unlink()
        case "bad manifest":
            (place / "manifest.json").write_text("[]")
        case "a file":
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
            place.write_text("in the way")
    assert GraphCache(tmp_path).folder("key", build) == place
    assert build.times == 2 and (place / "data").read_bytes() == b"d" * 5000
    assert GraphCache(tmp_path).folder("key", build) == place and build.times == 2


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        (place / "graph").write_bytes(b"half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        GraphCache(tmp_path).folder("key", fail)
    assert not list(tmp_path.iterdir())


def test_two_builders_at_once(tmp_path: Path) -> None:
    both = threading.Barrier(2)
    build = Builder()

    def slowly(place: Path) -> None:
        both.wait(10)
        build(place)

    with ThreadPoolExecutor(2) as threads:
        places = list(threads.map(lambda _: GraphCache(tmp_path).folder("key", slowly), range(2)))
    assert places[0] == places[1] and (places[0] / "data").read_bytes() == b"d" * 5000
    assert list(tmp_path.iterdir()) == [places[0]]


def test_a_process_that_is_killed_while_building(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from maru.runtimes.onnx.graph_cache import GraphCache\n"
        "def build(place):\n"
        "    (place / 'graph').write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
        "GraphCache(pathlib.Path(sys.argv[1])).folder('key', build)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    build = Builder()
    place = GraphCache(tmp_path).folder("key", build)
    assert build.times == 1 and (place / "graph").read_bytes() == b"g" * 1000


def test_an_encoder_survives_a_damaged_cache(small: Path, tmp_path: Path) -> None:
    folder, cache = EncoderFolder.read(small), tmp_path / "cache"
    expected = Encoder(folder, "fp32", cache).encode(IDS)
    (data,) = cache.glob("*/model.bin")
    data.write_bytes(data.read_bytes()[:-64])
    np.testing.assert_array_equal(Encoder(folder, "fp32", cache).encode(IDS), expected)


def test_other_weights_precisions_and_windows_are_other_graphs(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = EncoderFolder.read(small)
    Encoder(folder, "fp32", cache)
    Encoder(folder, "int8", cache)
    Encoder(folder, "int8", cache, max_tokens=16)
    assert len(list(cache.iterdir())) == 3
