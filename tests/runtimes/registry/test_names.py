from __future__ import annotations

import pytest

from maru.runtimes.registry.names import checked_alias, checked_name, checked_version, shown_source
from maru.runtimes.registry.types import VersionNotFound

LOGGED = "m-904a584e9a454f44ad136739a204955c"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (f"models:/{LOGGED}", f"models:/{LOGGED}"),
        ("runs:/0fd1/model", "runs:/0fd1/model"),
        (f"file:///home/someone/registry/artifacts/models/{LOGGED}/artifacts", f"models:/{LOGGED}"),
        (f"/home/someone/models/{LOGGED}/artifacts", f"models:/{LOGGED}"),
        ("/home/someone/mlruns/model", "file:model"),
        ("file:///home/someone/model", "file:model"),
        ("mlflow-artifacts:/1/r/artifacts/model", "mlflow-artifacts:/1/r/artifacts/model"),
        ("mlflow-artifacts://u:secret@host:5000/1/model", "mlflow-artifacts:/1/model"),
        ("s3://bucket/1/model", "s3://bucket/1/model"),
        ("https://u:secret@host/model?token=secret", "https://host/model"),
        ("https://[::1/model", ""),
        ("", ""),
    ],
)
def test_a_source_is_shown_without_folders_and_credentials(source: str, shown: str) -> None:
    assert shown_source(source) == shown


@pytest.mark.parametrize("alias", ["staging", "Production", "backtest_20250327", "운영", "a-b", "7"])
def test_aliases(alias: str) -> None:
    assert checked_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "a\n", "staging\n", "a'b", "a@b", "..", "x" * 256])
def test_no_aliases(alias: str) -> None:
    with pytest.raises(VersionNotFound):
        checked_alias(alias)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a@b", "a'b", 'a"b', "a\\b", "a\nb", "a\x00", "x" * 257])
def test_no_names(name: str) -> None:
    with pytest.raises(VersionNotFound):
        checked_name(name)


@pytest.mark.parametrize("version", ["", "-1", "1.0", "1\n", "../1", "v1", "1" * 19])
def test_no_versions(version: str) -> None:
    with pytest.raises(VersionNotFound):
        checked_version(version)
