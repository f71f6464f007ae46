"""What is found in a folder of models, whatever else is in it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from tests.fixtures_llm import random_folder
from tests.runtimes.generation.asking import run, said

from maru.runtimes.generation.catalogue import ID, Catalogue, Entry
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.transformers import Transformers


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def catalogue(models: Path) -> Catalogue:
    return Catalogue(models, {"gguf": LlamaCpp(slots=2, context=256, threads=1)})


def found(catalogue: Catalogue, id: str) -> Entry:
    entry = catalogue.get(id)
    assert entry is not None, [each.id for each in catalogue]
    return entry


def test_models_are_found_by_plain_names_and_can_be_loaded(
    catalogue: Catalogue, models: Path, random_model: Path
) -> None:
    (models / "owner--name").mkdir()
    for name in ("Llama_3.1 8B.Q4_K_M.gguf", "owner--name/inside.gguf"):
        shutil.copy(random_model, models / name)
    assert catalogue.scan()
    assert {entry.id for entry in catalogue} == {"llama-3.1-8b.q4-k-m", "inside"}
    entry = found(catalogue, "inside")
    assert entry.problem is None and entry.context_length == 512 and entry.size == random_model.stat().st_size
    model = entry.load()
    assert isinstance(model, GenerationModel)
    try:
        assert run(said(model, "Hi")).finished.completion_tokens > 0
    finally:
        model.close()


def test_a_folder_that_is_not_there_or_empty_has_no_models(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "nowhere", {"gguf": LlamaCpp()})
    assert not catalogue.scan() and not list(catalogue)


def test_a_folder_of_safetensors_is_one_model_with_the_folders_name(models: Path) -> None:
    random_folder(models / "Owner--Name-1B", context=1024)
    (random_folder(models / "bad") / "config.json").unlink()
    (models / "no model").mkdir()
    catalogue = Catalogue(models, {"gguf": LlamaCpp(), "safetensors": Transformers(context=256)})
    catalogue.scan()
    entry = found(catalogue, "owner-name-1b")
    assert (entry.kind, entry.problem, entry.context_length) == ("safetensors", None, 1024)
    assert entry.description and entry.description.facts["max_context_length"] == 256
    assert "config.json" in str(found(catalogue, "bad").problem) and len(list(catalogue)) == 2
    version = entry.version
    (models / "Owner--Name-1B" / "generation_config.json").write_text("{}")
    assert catalogue.scan() and found(catalogue, "owner-name-1b").version != version


def test_a_models_checksum_is_that_of_its_files(models: Path, random_model: Path) -> None:
    shutil.copy(random_model, models / "file.gguf")
    weights = random_folder(models / "folder") / "model.safetensors"
    catalogue = Catalogue(models, {"gguf": LlamaCpp(), "safetensors": Transformers()})
    catalogue.scan()
    assert found(catalogue, "file").sha256() == hashlib.sha256(random_model.read_bytes()).hexdigest()
    before = found(catalogue, "folder").sha256()
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert found(catalogue, "folder").sha256() != before


def test_kinds_that_nothing_runs_are_not_listed(catalogue: Catalogue, models: Path) -> None:
    random_folder(models / "folder")
    assert not catalogue.scan()


def test_what_cannot_be_used_is_listed_with_the_reason(catalogue: Catalogue, models: Path, random_model: Path) -> None:
    content = random_model.read_bytes()
    (models / "cut.gguf").write_bytes(content[: len(content) // 2])
    (models / "text.gguf").write_text("I am no model.")
    (models / "folder.gguf").mkdir()
    os.mkfifo(models / "pipe.gguf")
    shutil.copy(random_model, models / "good.gguf")
    catalogue.scan()
    problems = {entry.id: entry.problem for entry in catalogue}
    assert problems.pop("good") is None
    assert all(problems.values()) and set(problems) >= {"cut", "text", "pipe"}
    assert str(models) not in str(problems)


def test_a_link_out_of_the_folder_is_not_followed(
    catalogue: Catalogue, models: Path, tmp_path: Path, random_model: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(random_model, outside / "far.gguf")
    (models / "link.gguf").symlink_to(outside / "far.gguf")
    (models / "folder").symlink_to(outside)
    (models / "loop.gguf").symlink_to(models / "loop.gguf")
    catalogue.scan()
    assert all(entry.problem and entry.description is None for entry in catalogue)


def test_names_that_are_no_names_become_ids_that_are(catalogue: Catalogue, models: Path, random_model: Path) -> None:
    names = ["..gguf.gguf", "-.gguf", "모델.gguf", "a" * 200 + ".gguf", "A B.gguf", "a b.gguf", ".hidden.gguf"]
    for name in names:
        shutil.copy(random_model, models / name)
    catalogue.scan()
    ids = [entry.id for entry in catalogue]
    visible = [name for name in names if not name.startswith(".")]
    assert len(ids) == len(set(ids)) == len(visible)
    assert all(ID.fullmatch(id) for id in ids), ids


def test_a_change_in_the_folder_is_seen_at_the_next_look_and_only_then(
    catalogue: Catalogue, models: Path, random_model: Path
) -> None:
    assert not catalogue.scan()
    path = models / "m.gguf"
    content = random_model.read_bytes()
    path.write_bytes(content[:1000])  # as if it were still being copied
    assert catalogue.scan() and found(catalogue, "m").problem
    path.write_bytes(content)
    assert catalogue.scan() and found(catalogue, "m").problem is None
    version = found(catalogue, "m").version
    assert not catalogue.scan()
    os.utime(path, (1, 1))
    assert catalogue.scan() and found(catalogue, "m").version != version
    path.unlink()
    assert catalogue.scan() and not list(catalogue)


def test_files_that_have_not_changed_are_not_read_again(models: Path, random_model: Path) -> None:
    class Counting(LlamaCpp):
        seen: list[Path] = []  # noqa: RUF012

        def describe(self, path: Path):  # type: ignore[no-untyped-def]
            self.seen.append(path)
            return super().describe(path)

    for name in ("a", "b"):
        shutil.copy(random_model, models / f"{name}.gguf")
    catalogue = Catalogue(models, {"gguf": Counting()})
    for _ in range(3):
        catalogue.scan()
    (models / "b.gguf").write_bytes(b"now another")
    catalogue.scan()
    assert [path.name for path in Counting.seen] == ["a.gguf", "b.gguf", "b.gguf"]


def test_a_runtime_that_fails_in_its_own_way_spoils_one_entry_only(
    catalogue: Catalogue, models: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = LlamaCpp.describe

    def failing(self: LlamaCpp, path: Path) -> object:
        if path.name == "bad.gguf":
            raise RecursionError("deep")
        return describe(self, path)

    monkeypatch.setattr(LlamaCpp, "describe", failing)
    for name in ("bad", "good"):
        shutil.copy(random_model, models / f"{name}.gguf")
    catalogue.scan()
    assert "RecursionError" in str(found(catalogue, "bad").problem) and found(catalogue, "good").problem is None
