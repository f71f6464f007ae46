"""The embedded registry, where it differs from a server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from maru.engine.errors import ModelLoadFailed
from maru.runtimes.errors import BadModelFile
from maru.runtimes.registry.child import Child
from maru.runtimes.registry.local import LocalRegistry
from maru.runtimes.registry.mlflow_store import MlflowStore, download
from maru.runtimes.registry.open import open_registry
from maru.runtimes.registry.rest import RestRegistry
from maru.runtimes.registry.staging import Staging
from maru.runtimes.registry.types import Bounds, RegistryUnavailable, VersionNotFound

from .conftest import published


def ask(store: str | Path, question: Callable[[LocalRegistry], Awaitable[Any]]) -> Any:
    async def asked() -> Any:
        registry = LocalRegistry(store)
        try:
            return await question(registry)
        finally:
            await registry.aclose()

    return asyncio.run(asked())


def artifacts_of(embedded: Path, name: str) -> Path:
    """The folder in the registry's own store where a version's files are."""
    location = MlflowStore.of(embedded).client.get_model_version_download_uri(name, "1")
    return Path(unquote(location.removeprefix("file://")))


def test_asking_an_empty_registry_makes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    assert ask(folder, lambda registry: registry.models()) == []
    for question in (
        lambda registry: registry.resolve("BTC", "staging"),
        lambda registry: registry.versions("BTC"),
        lambda registry: registry.set_alias("BTC", "staging", "1"),
    ):
        with pytest.raises(VersionNotFound):
            ask(folder, question)
    assert not folder.exists()


def test_no_environment_variable_and_no_global_store_is_changed(embedded: Path) -> None:
    import mlflow

    before = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    published(embedded, "Global")
    assert (mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")) == before


def test_a_database_is_opened_by_its_url(embedded: Path) -> None:
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(embedded / "mlflow.db")).render_as_string()
    assert ask(url, lambda registry: registry.resolve("BTC_LSTM", "staging")).version == "1"


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        (None, LocalRegistry),
        ("http://127.0.0.1:5000", RestRegistry),
        ("HTTPS://registry.example/prefix", RestRegistry),
        ("sqlite:////tmp/mlflow.db", LocalRegistry),
        ("postgresql+psycopg://u:p@host/db", LocalRegistry),
    ],
)
def test_which_registry_is_meant(tmp_path: Path, uri: str | None, kind: type) -> None:
    assert isinstance(open_registry(uri, tmp_path), kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["", "./mlruns", "file:///etc", "databricks", "ftp://u:secret@host", "s3://bucket"])
def test_another_address_is_refused_in_a_line_that_does_not_repeat_it(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ValueError, match="must be the http or https URL") as failure:
        open_registry(uri, tmp_path)
    assert not uri or uri not in str(failure.value)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\x00" * 4000])
def test_a_database_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(RegistryUnavailable) as failure:
        ask(tmp_path, lambda registry: registry.resolve("BTC", "staging"))
    assert "/" not in str(failure.value) and len(str(failure.value)) < 200


def test_the_database_of_another_mlflow_is_left_as_it_is(embedded: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mlflow.db"
    shutil.copy(embedded / "mlflow.db", copy)
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    before = copy.read_bytes()
    with pytest.raises(RegistryUnavailable, match="mlflow db upgrade"):
        ask(tmp_path, lambda registry: registry.models())
    assert copy.read_bytes() == before


@pytest.mark.parametrize("what", ["link", "linked folder", "pipe", "gone"])
def test_what_is_no_plain_file_in_the_store_is_not_followed(embedded: Path, tmp_path: Path, what: str) -> None:
    name = f"Spoilt by a {what}"
    published(embedded, name, alias="staging")
    folder = artifacts_of(embedded, name)
    match what:
        case "link":
            (folder / "model.onnx").unlink()
            (folder / "model.onnx").symlink_to("/etc/passwd")
        case "linked folder":
            (folder / "more").symlink_to("/etc")
        case "pipe":
            os.mkfifo(folder / "pipe")
        case _:
            folder.rename(folder.with_name("elsewhere"))

    async def fetched(registry: LocalRegistry) -> Path:
        return await registry.fetch(await registry.resolve(name, "staging"), tmp_path / "model")

    with pytest.raises(ModelLoadFailed) as failure:
        ask(embedded, fetched)
    assert isinstance(failure.value, BadModelFile) or what == "gone"
    assert "/" not in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_is_none_is_not_published(embedded: Path) -> None:
    from maru.runtimes.registry.publish import publish

    with pytest.raises(ValueError, match="no sound ONNX model"):
        publish(
            embedded, "Unsound", b"\x08\x07 no graph", seq_len=12, n_features=18, metadata={}, params={}, metrics={},
            experiment="forecast",
        )  # fmt: skip
    with pytest.raises(VersionNotFound):
        ask(embedded, lambda registry: registry.versions("Unsound"))


def test_files_are_had_from_wherever_mlflow_can_reach(embedded: Path, tmp_path: Path) -> None:
    published(embedded, "Reached")
    folder = artifacts_of(embedded, "Reached")
    (folder / "more").mkdir()
    (folder / "more" / "notes").write_text("notes")

    with Staging(tmp_path / "model", Bounds()) as staging:
        download(folder.as_uri(), staging)

    def of(root: Path) -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert of(tmp_path / "model") == of(folder)


def test_a_cloud_whose_library_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(RegistryUnavailable, match="package boto"),
        Staging(tmp_path / "m", Bounds()) as s,
    ):
        download("s3://bucket/models/m-1/artifacts", s)


def publishing(folder: Path) -> subprocess.Popen[str]:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from graphs import graph\n"
        "from maru.runtimes.registry.publish import publish\n"
        "print(publish(Path(sys.argv[1]), 'BTC', graph(), seq_len=12, n_features=18, metadata={}, params={},"
        " metrics={}, experiment='e').version)"
    )
    command = [sys.executable, "-c", script, str(folder), str(Path(__file__).parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_make_one_registry(tmp_path: Path) -> None:
    both = [publishing(tmp_path / "registry") for _ in range(2)]
    assert sorted(process.communicate(timeout=120)[0].strip() for process in both) == ["1", "2"]


@pytest.mark.slow
def test_a_registry_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    killed = publishing(folder)
    until = time.monotonic() + 60
    while not any(path.stat().st_size > 100_000 for path in folder.glob(".new-*/mlflow.db")):
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    killed.kill()
    killed.communicate()

    assert not (folder / "mlflow.db").exists()
    assert published(folder).version == "1"
    assert not list(folder.glob(".new-*"))


def test_serving_imports_no_mlflow_before_it_is_asked() -> None:
    script = (
        "import sys, maru.runtimes.registry.open, maru.runtimes.registry.publish, maru.services.forecast.model\n"
        "print([name for name in ('mlflow', 'pandas', 'sqlalchemy') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


def children() -> list[int]:
    """The processes that read registries for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"maru.runtimes.registry.child" in command and parent == os.getpid():
            found.append(int(process.name))
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes")
def test_a_child_that_dies_is_told_and_replaced_and_none_is_left(embedded: Path) -> None:
    async def asked() -> None:
        registry = LocalRegistry(embedded)
        assert (await registry.resolve("BTC_LSTM", "staging")).version == "1"
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        waiting = asyncio.create_task(registry.resolve("BTC_LSTM", "staging"))
        await asyncio.sleep(0.1)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(RegistryUnavailable):
            await waiting
        assert (await registry.resolve("BTC_LSTM", "staging")).version == "1"
        await registry.aclose()

    asyncio.run(asked())
    assert children() == []


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes")
def test_a_question_that_hangs_does_not_keep_the_process_from_ending(embedded: Path) -> None:
    async def asked() -> None:
        registry = LocalRegistry(embedded)
        await registry.models()
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        waiting = asyncio.create_task(registry.models())
        await asyncio.sleep(0.1)
        await registry.aclose()
        with pytest.raises(RegistryUnavailable):
            await asyncio.wait_for(waiting, 20)
        with pytest.raises(RegistryUnavailable):
            registry._child.ask("models")

    asyncio.run(asked())
    assert children() == []


def test_whoever_asks_imports_no_mlflow_and_whoever_dies_leaves_no_child(embedded: Path) -> None:
    program = (
        "import asyncio, sys, os\n"
        "from pathlib import Path\n"
        "from maru.runtimes.registry.local import LocalRegistry\n"
        f"registry = LocalRegistry(Path({str(embedded)!r}))\n"
        "assert asyncio.run(registry.resolve('BTC_LSTM', 'staging')).version == '1'\n"
        "assert 'mlflow' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
        "print(registry._child._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL, run.stderr
    until = time.monotonic() + 20
    while Path(f"/proc/{int(run.stdout)}").exists():
        assert time.monotonic() < until, "the child outlived its parent"
        time.sleep(0.02)


def test_a_child_that_is_not_asked_ends_and_the_next_question_starts_another(embedded: Path) -> None:
    child = Child(embedded, Bounds(), idle_s=0.2)
    try:
        assert child.ask("resolve", "BTC_LSTM", "staging").version == "1"
        first = child._process
        assert first is not None and first.wait(20) == 0
        for _ in range(5):  # also at the very moment at which it ends
            assert child.ask("resolve", "BTC_LSTM", "staging").version == "1"
            time.sleep(0.2)
    finally:
        child.close()
