"""Names, versions and aliases."""

from __future__ import annotations

import pytest

from maru.engine.errors import ModelNotFound, ModelNotReady
from maru.engine.model import Model, ModelSpec
from maru.engine.repository import Repository
from maru.engine.types import ModelRef


def spec(version: str, digest: str = "", name: str = "m") -> ModelSpec:
    return ModelSpec(ModelRef(name, version, digest or version), Model)


def test_the_first_version_is_the_latest_until_another_is() -> None:
    repository = Repository()
    repository.add(spec("1"))
    repository.add(spec("2"))
    assert repository.resolve("m").ref.version == "1"
    assert repository.resolve("m@2").ref.version == "2"
    assert [each.ref.version for each in repository.add(spec("2"), "latest")] == ["1"]
    assert repository.resolve("m").ref.version == repository.resolve("m@latest").ref.version == "2"


def test_a_version_is_replaced_when_its_last_alias_moves() -> None:
    repository = Repository()
    repository.add(spec("1"), "latest", "stable")
    assert repository.add(spec("2"), "latest") == []
    assert repository.aliases("m") == {"latest": "2", "stable": "1"}
    assert repository.add(spec("2"), "stable") == [spec("1")] or repository.aliases("m")["stable"] == "2"
    with pytest.raises(ModelNotFound):
        repository.resolve("m@1")


def test_a_version_that_no_alias_ever_named_stays() -> None:
    repository = Repository()
    repository.add(spec("1"))
    repository.add(spec("2"))
    assert [each.ref.version for each in repository.add(spec("3"), "latest")] == ["1"]
    assert repository.resolve("m@2").ref.version == "2"


def test_the_same_version_of_other_bytes_replaces_the_first() -> None:
    repository = Repository()
    first = spec("1", "old")
    repository.add(first)
    assert repository.add(spec("1", "new")) == [first]
    assert repository.resolve("m").ref.digest == "new"


def test_what_is_removed_is_forgotten_with_its_aliases() -> None:
    repository = Repository()
    repository.add(spec("1"), "stable")
    repository.add(spec("2"), "latest")
    repository.remove("m", "1")
    with pytest.raises(ModelNotFound):
        repository.resolve("m@stable")
    repository.remove("m", "2")
    repository.remove("m", "2")
    repository.remove("nobody", "2")
    assert list(repository) == [] and repository.aliases("m") == {}


@pytest.mark.parametrize("name", ["", "@", "m@", "M", "m@9", "m@1@1", "../m", "m/1", "m@../1", "n", "n@latest", "\0"])
def test_a_name_that_is_not_known_is_not_found(name: str) -> None:
    repository = Repository()
    repository.add(spec("1"))
    if name == "m@":
        assert repository.resolve(name).ref.version == "1"
        return
    with pytest.raises(ModelNotFound):
        repository.resolve(name)


def test_a_model_that_is_on_its_way_is_asked_for_too_early() -> None:
    repository = Repository()
    repository.expect("m")
    with pytest.raises(ModelNotReady):
        repository.resolve("m")
    repository.add(spec("1"))
    assert repository.resolve("m").ref.version == "1"
    with pytest.raises(ModelNotFound):
        repository.resolve("m@2")
