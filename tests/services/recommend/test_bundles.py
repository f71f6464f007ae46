"""The folder of bundles: whole or absent, never changed, and one step from one to the next."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from maru.services.recommend.bundles import BundleDamaged, BundleError, BundleNotFound, Bundles


def build(folder: Path, content: str = "array") -> Mapping[str, Any]:
    (folder / "index.npy").write_text(content)
    (folder / "clicks.txt").write_text("trees")
    return {"created": "2026-01-01T00:00:00+00:00", "metrics": {"served": {"weighted": {"value": 0.5}}}}


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    return Bundles(tmp_path / "bundles")


def three(bundles: Bundles) -> None:
    for content in ("one", "two", "three"):
        bundles.add(lambda folder, content=content: build(folder, content))


def test_an_empty_folder_has_nothing(bundles, tmp_path):
    assert bundles.versions() == [] and bundles.aliases() == {} and bundles.current() is None
    assert not (tmp_path / "bundles").exists(), "looking makes nothing"
    for ask in (bundles.open, bundles.promote):
        with pytest.raises(BundleNotFound, match="there is no version v1"):
            ask("v1")
    with pytest.raises(BundleNotFound):
        bundles.rollback()


def test_versions_count_up_and_say_what_they_are(bundles):
    three(bundles)
    assert [bundle.version for bundle in bundles.versions()] == ["v3", "v2", "v1"]
    bundle = bundles.open("v2")
    assert (bundle.folder / "index.npy").read_text() == "two"
    assert bundle.metrics["served"]["weighted"]["value"] == 0.5 and bundle.created.startswith("2026")
    assert bundle.memory_bytes == len("two") + len("trees")
    assert bundle.digest != bundles.open("v1").digest and len(bundle.digest) == 64
    assert bundle.manifest["files"]["clicks.txt"]["bytes"] == 5


def test_promote_and_roll_back(bundles):
    three(bundles)
    for version in ("v1", "v3", "v3", "v2"):
        bundles.promote(version)
        assert bundles.current() == version
    assert bundles.rollback().version == "v3" == bundles.current()
    assert bundles.rollback().version == "v1" == bundles.current()
    with pytest.raises(BundleNotFound, match="no version before live"):
        bundles.rollback()
    assert bundles.current() == "v1"


def test_a_candidate_beside_what_is_live(bundles):
    three(bundles)
    bundles.promote("v1")
    bundles.promote("v2", "candidate")
    assert bundles.aliases() == {"live": "v1", "candidate": "v2"}
    bundles.promote("v2")
    assert bundles.aliases() == {"live": "v2"}, "what is live is no candidate"
    bundles.promote("v3", "candidate")
    bundles.withdraw()
    assert bundles.aliases() == {"live": "v2"}


@pytest.mark.parametrize("name", ["../v1", "v1/../v2", "v0", "V1", "", "v01", "latest", "v1\n"])
def test_names_are_never_paths(bundles, name):
    three(bundles)
    with pytest.raises(BundleNotFound):
        bundles.open(name)


def corrupt(folder: Path) -> None:
    (folder / "index.npy").write_text("owt")


def lose(folder: Path) -> None:
    (folder / "clicks.txt").unlink()


def slip_in(folder: Path) -> None:
    (folder / "orders.txt").write_text("trees that nobody trained")


def unread(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    "damage, told",
    [
        (corrupt, "v2: index.npy is not what was written"),
        (lose, "v2: clicks.txt can't be read"),
        (slip_in, "v2 has a file that does not belong to it: orders.txt"),
        (unread, "v2: manifest.json describes no bundle"),
    ],
)
def test_what_is_damaged_is_not_served(bundles, damage, told):
    three(bundles)
    bundles.promote("v1")
    damage(bundles.open("v2").folder)
    for ask in (bundles.open, bundles.promote):
        with pytest.raises(BundleDamaged, match=told):
            ask("v2")
    assert bundles.current() == "v1"


def test_a_roll_back_to_what_is_damaged_changes_nothing(bundles):
    three(bundles)
    bundles.promote("v1")
    bundles.promote("v2")
    corrupt(bundles.open("v1").folder)
    with pytest.raises(BundleDamaged):
        bundles.rollback()
    assert bundles.current() == "v2"


def test_a_training_that_fails_leaves_nothing(bundles, tmp_path):
    def fails(folder: Path) -> Mapping[str, Any]:
        build(folder)
        raise MemoryError

    with pytest.raises(MemoryError):
        bundles.add(fails)
    assert bundles.versions() == [] and list((tmp_path / "bundles").iterdir()) == []


def test_a_version_is_never_given_twice(bundles):
    """Also when its folder is gone: an alias may still remember it."""
    three(bundles)
    bundles.promote("v3")
    folder = bundles.open("v3").folder
    folder.rename(folder.parent / "elsewhere")
    assert bundles.add(build).version == "v4"


def test_aliases_that_can_not_be_read_are_an_error_and_not_a_fresh_start(bundles, tmp_path):
    three(bundles)
    (tmp_path / "bundles" / "aliases.json").write_text('{"live": ["v')
    for ask in (bundles.aliases, lambda: bundles.promote("v1")):
        with pytest.raises(BundleError, match=r"aliases\.json can't be read"):
            ask()


def _adds(folder: str, started: Any) -> None:
    started.wait()
    for _ in range(5):
        bundle = Bundles(Path(folder)).add(build)
        Bundles(Path(folder)).promote(bundle.version)


def test_many_processes_at_once(bundles, tmp_path):
    """Each gets versions of its own, and none loses another's alias."""
    context = multiprocessing.get_context("spawn")
    started = context.Barrier(3)
    writers = [context.Process(target=_adds, args=(str(tmp_path / "bundles"), started)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert sorted(int(bundle.version[1:]) for bundle in bundles.versions()) == list(range(1, 16))
    remembered = json.loads((tmp_path / "bundles" / "aliases.json").read_text())["live"]
    assert len(set(remembered)) == len(remembered) == 15


KILLED = """
import sys, time
from pathlib import Path
from maru.services.recommend.bundles import Bundles

def build(folder):
    (folder / "index.npy").write_text("half of it")
    print("writing", flush=True)
    time.sleep(60)

Bundles(Path(sys.argv[1])).add(build)
"""


def test_killed_while_it_writes(bundles, tmp_path):
    three(bundles)
    bundles.promote("v3")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "bundles")], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [bundle.version for bundle in bundles.versions()] == ["v3", "v2", "v1"] and bundles.current() == "v3"
    (left,) = (tmp_path / "bundles").glob(".building-*")
    assert bundles.add(build).version == "v4" and left.exists(), "it may be another training that still runs"
    os.utime(left, (time.time() - 2 * 86_400,) * 2)
    bundles.add(build)
    assert not left.exists()
