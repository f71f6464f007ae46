"""Models from a hub on loopback, which cuts connections and sends other bytes than it promised."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtimes.fake_hub import Hub, serving

from maru.runtimes.errors import ModelUnavailable
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.pull import PARTIAL, generates, pull, remove

NAME = "someone/small"
GGUF = "small.Q8_0.gguf"


@pytest.fixture(autouse=True)
def nobody_signed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def hub(random_model: Path) -> Iterator[Hub]:
    with serving(Hub(NAME, {GGUF: random_model.read_bytes(), "README.md": b"words"})) as hub:
        yield hub


def names(models: Path) -> set[str]:
    return {path.relative_to(models).as_posix() for path in models.rglob("*") if path.is_file()}


def test_the_only_gguf_of_a_repository_is_fetched_and_found(hub: Hub, models: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = pull(NAME, models, endpoint=hub.url, progress=lambda *each: told.append(each))
    assert path.read_bytes() == hub.files[GGUF] and names(models) == {f"someone--small/{GGUF}"}
    size = len(hub.files[GGUF])
    assert told[0] == (GGUF, 0, size) and told[-1] == (GGUF, size, size)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    catalogue = Catalogue(models, {"gguf": LlamaCpp()})
    catalogue.scan()
    assert [(entry.id, entry.problem) for entry in catalogue] == [("small.q8-0", None)]


def test_of_several_one_must_be_named(hub: Hub, models: Path) -> None:
    hub.files["deep/other.gguf"] = hub.files[GGUF] + b" "
    with pytest.raises(ModelUnavailable, match=r"--file: small.Q8_0.gguf.*deep/other.gguf"):
        pull(NAME, models, endpoint=hub.url)
    assert pull(NAME, models, "deep/other.gguf", endpoint=hub.url) == models / "someone--small" / "other.gguf"
    with pytest.raises(ModelUnavailable, match="--file"):
        pull(NAME, models, "../../etc/passwd", endpoint=hub.url)


def test_a_model_of_safetensors_comes_with_what_belongs_to_it_and_nothing_else(hub: Hub, models: Path) -> None:
    wanted = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"a"}
    unwanted = {
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"import os",
        "onnx/model.onnx": b"x",
        "onnx/a.json": b"{}",
    }
    hub.files = {**wanted, **unwanted}
    assert pull(NAME, models, endpoint=hub.url) == models / "someone--small"
    assert names(models) == {f"someone--small/{name}" for name in wanted}


@pytest.mark.parametrize("name", ["", "../x", "/etc", "a/b/c", "a\nb", "http://x/y", "a--b/c", "x" * 200])
def test_what_is_no_repositorys_name_is_not_asked_for(hub: Hub, models: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable, match="no name"):
        pull(name, models, endpoint=hub.url)
    assert not hub.seen


def test_what_is_here_is_not_fetched_again(hub: Hub, models: Path) -> None:
    for _ in range(2):
        pull(NAME, models, endpoint=hub.url)
    assert len(hub.downloads()) == 1


def test_what_is_here_but_spoilt_is_fetched_again(hub: Hub, models: Path) -> None:
    path = pull(NAME, models, endpoint=hub.url)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    assert pull(NAME, models, endpoint=hub.url).read_bytes() == content


def test_a_connection_that_is_cut_is_taken_up_where_it_was(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cuts[GGUF] = [20_000]
    assert pull(NAME, models, endpoint=hub.url).read_bytes() == hub.files[GGUF]
    assert hub.downloads(GGUF)[1].startswith("bytes=")


def test_a_download_that_was_broken_off_goes_on_where_it_stopped_in_another_process(hub: Hub, models: Path) -> None:
    class Ended(BaseException):
        pass

    def end(file: str, done: int, total: int) -> None:
        if done:
            raise Ended

    content = hub.files[GGUF]
    with pytest.raises(Ended):
        pull(NAME, models, endpoint=hub.url, progress=end)
    (part,) = (models / PARTIAL).iterdir()
    part.write_bytes(content[:300_000])
    catalogue = Catalogue(models, {"gguf": LlamaCpp()})
    assert not catalogue.scan(), "a half is no model"
    told: list[int] = []
    assert pull(NAME, models, endpoint=hub.url, progress=lambda _, n, __: told.append(n)).read_bytes() == content
    assert hub.downloads(GGUF)[-1] == "bytes=300000-" and told[0] == 300_000


def test_a_part_that_was_spoilt_meanwhile_is_noticed_and_fetched_anew(hub: Hub, models: Path) -> None:
    (models / PARTIAL).mkdir(parents=True)
    (models / PARTIAL / hub.checksum(GGUF)).write_bytes(b"?" * 1000)
    with pytest.raises(ModelUnavailable, match="checksum"):
        pull(NAME, models, endpoint=hub.url)
    assert pull(NAME, models, endpoint=hub.url).read_bytes() == hub.files[GGUF]


def test_other_bytes_than_promised_never_get_the_models_name(hub: Hub, models: Path) -> None:
    hub.sends[GGUF] = b"?" * len(hub.files[GGUF])
    with pytest.raises(ModelUnavailable, match="checksum"):
        pull(NAME, models, endpoint=hub.url)
    assert names(models) == set()


@pytest.mark.parametrize(("status", "said"), [(401, "HF_TOKEN"), (503, "can't be fetched")])
def test_a_hub_that_refuses_says_what_to_do(hub: Hub, models: Path, status: int, said: str) -> None:
    hub.refuses = status
    with pytest.raises(ModelUnavailable, match=said):
        pull(NAME, models, endpoint=hub.url)


def test_a_gated_model_opens_with_a_token(hub: Hub, models: Path) -> None:
    hub.gated_for_all_but = "secret"
    with pytest.raises(ModelUnavailable, match="gated"):
        pull(NAME, models, endpoint=hub.url)
    assert pull(NAME, models, endpoint=hub.url, token="secret").is_file()


def test_a_model_for_which_there_is_no_room_is_not_begun(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelUnavailable, match="GB"):
        pull(NAME, models, endpoint=hub.url)
    assert not hub.downloads()


def test_a_sentence_encoder_is_told_from_a_model_that_generates(hub: Hub) -> None:
    assert generates(NAME, endpoint=hub.url)
    hub.files["modules.json"] = b"[]"
    assert not generates(NAME, endpoint=hub.url)
    hub.refuses = 503
    with pytest.raises(ModelUnavailable):
        generates(NAME, endpoint=hub.url)


# Removing


def test_a_model_is_removed_by_its_id_with_all_its_files(hub: Hub, models: Path) -> None:
    pull(NAME, models, endpoint=hub.url)
    catalogue = Catalogue(models, {"gguf": LlamaCpp()})
    assert remove(catalogue, "small.q8-0") == len(hub.files[GGUF])
    assert names(models) == set() and not (models / "someone--small").exists()


@pytest.mark.parametrize("id", ["", "..", "../outside", "/etc/passwd", "small", "someone--small"])
def test_only_what_is_listed_can_be_removed(hub: Hub, models: Path, tmp_path: Path, id: str) -> None:
    (tmp_path / "outside").mkdir()
    pull(NAME, models, endpoint=hub.url)
    with pytest.raises(ModelUnavailable, match=r"small\.q8-0"):
        remove(Catalogue(models, {"gguf": LlamaCpp()}), id)
    assert len(names(models)) == 1 and (tmp_path / "outside").is_dir()


def test_of_a_link_the_link_is_removed_and_not_what_it_leads_to(models: Path, random_model: Path) -> None:
    models.mkdir()
    (models / "link.gguf").symlink_to(random_model)
    remove(Catalogue(models, {"gguf": LlamaCpp()}), "link")
    assert random_model.is_file() and not list(models.iterdir())
