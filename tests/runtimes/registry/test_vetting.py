"""Hostile and damaged models: none is run to find out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.registry.types import Bounds
from maru.runtimes.registry.vetting import Manifest

from .graphs import built, graph

SOUND: dict[str, Any] = {
    "flavors": {
        "python_function": {"loader_module": "mlflow.onnx", "data": "model.onnx", "code": None},
        "onnx": {"data": "model.onnx", "code": None, "providers": ["CPUExecutionProvider"]},
    },
    "metadata": {"close_index": 3},
}


def folder_of(root: Path, fields: Any = SOUND, content: bytes | None = None) -> Path:
    root.mkdir()
    (root / "MLmodel").write_text(yaml.safe_dump(fields))
    (root / "model.onnx").write_bytes(graph(1.0) if content is None else content)
    return root


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "model")


def with_flavors(function: dict[str, Any], flavor: dict[str, Any] | None = None) -> dict[str, Any]:
    flavors = SOUND["flavors"]
    return {
        "flavors": {
            "python_function": {**flavors["python_function"], **function},
            "onnx": {**flavors["onnx"], **(flavor or {})},
        }
    }


def test_a_sound_model_is_taken(sound: Path) -> None:
    manifest = Manifest.read(sound)
    found = manifest.graph()
    assert found.path == sound / "model.onnx"
    assert (found.inputs[0].name, found.inputs[0].shape) == ("x", (None, 12, 18))
    assert found.outputs[0].shape == (None, 1)
    assert manifest.metadata == {"close_index": 3}


@pytest.mark.parametrize(
    "fields",
    [
        with_flavors({"loader_module": "evil_loader"}),
        with_flavors({"loader_module": "mlflow.sklearn"}),
        with_flavors({"loader_module": "mlflow.onnx.evil"}),
        with_flavors({"loader_module": ["mlflow.onnx"]}),
        with_flavors({"loader_module": None}),
        with_flavors({"code": "code"}),
        with_flavors({}, {"code": "code"}),
        with_flavors({"data": "other.onnx"}),
        with_flavors({"data": "../model.onnx"}, {"data": "../model.onnx"}),
        with_flavors({"data": "/etc/passwd"}, {"data": "/etc/passwd"}),
        with_flavors({"data": "."}, {"data": "."}),
        with_flavors({"data": ""}, {"data": ""}),
        with_flavors({"data": {}}, {"data": {}}),
        with_flavors({"data": "missing.onnx"}, {"data": "missing.onnx"}),
        {"flavors": {"onnx": SOUND["flavors"]["onnx"]}},
        {"flavors": {"python_function": SOUND["flavors"]["python_function"]}},
        {"flavors": []},
        {"flavors": None},
        {},
        [],
        None,
        "text",
        7,
    ],
)
def test_a_manifest_that_asks_for_more_is_refused(tmp_path: Path, fields: Any) -> None:
    folder = folder_of(tmp_path / "model", fields)
    (tmp_path / "model.onnx").write_bytes(graph())
    with pytest.raises((BadModelFile, UnsupportedModel)) as failure:
        Manifest.read(folder).graph()
    assert str(tmp_path) not in str(failure.value)


@pytest.mark.parametrize(
    "text",
    [
        "flavors: !!python/object/apply:os.system ['touch pwned']",
        "!!python/object/new:subprocess.Popen [[touch, pwned]]",
        "[" * 60_000,
        "{a: " * 20_000,
        "a: &a [*a, *a]",
        "\x00\x01\x02",
        "key: [unclosed",
        "- " * 100_000,
        "? " * 10_000,
        "2026-13-45: 99999999999999999999999999-01-01",
        "x: " + "9" * 100_000,
    ],
)
def test_a_manifest_that_is_no_manifest(sound: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sound.parent)
    (sound / "MLmodel").write_text(text)
    with pytest.raises((BadModelFile, UnsupportedModel)):
        Manifest.read(sound).graph()
    assert not (sound.parent / "pwned").exists()


def test_references_that_blow_up_are_not_followed(sound: Path) -> None:
    lines = ["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30))]
    manifest = yaml.safe_dump(SOUND)
    (sound / "MLmodel").write_text(manifest + "\n".join(lines))
    assert Manifest.read(sound).graph().digest


def link_graph(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def link_manifest(folder: Path) -> None:
    (folder / "MLmodel").rename(folder.parent / "elsewhere")
    (folder / "MLmodel").symlink_to(folder.parent / "elsewhere")


def link_folder(folder: Path) -> None:
    (folder / "data").symlink_to("/etc")


def hang_on_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def lose_the_manifest(folder: Path) -> None:
    (folder / "MLmodel").unlink()


def swell_the_manifest(folder: Path) -> None:
    with (folder / "MLmodel").open("a") as manifest:
        manifest.write("# more\n" * 100_000)


def make_it_a_folder(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()


@pytest.mark.parametrize(
    "spoil",
    [link_graph, link_manifest, link_folder, hang_on_a_pipe, lose_the_manifest, swell_the_manifest, make_it_a_folder],
)
def test_a_folder_that_is_not_plain_is_refused(sound: Path, spoil: Callable[[Path], None]) -> None:
    spoil(sound)
    with pytest.raises(BadModelFile):
        Manifest.read(sound).graph()


@pytest.mark.parametrize("bounds", [Bounds(max_bytes=100), Bounds(max_files=1)])
def test_a_folder_over_the_bounds_is_refused(sound: Path, bounds: Bounds) -> None:
    with pytest.raises(BadModelFile, match="larger"):
        Manifest.read(sound, bounds)


def with_external(location: str, *, inside: bool = False) -> bytes:
    tensor = TensorProto(name="more", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if not inside:
        return built([helper.make_node("Add", ["x", "more"], ["y"])], [tensor], ["N", 12, 18], ["N", 12, 18])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["z"], value=tensor)], "branch", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    return built(nodes, [], ["N", 12, 18], [1])


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "/etc/passwd",
        "sub/../../secret",
        "./../secret",
        "missing",
        "",
        ".",
        "..",
        "linked/secret",
        "a\x00b",
    ],
)
def test_data_from_outside_is_refused(tmp_path: Path, location: str, inside: bool) -> None:
    (tmp_path / "secret").write_bytes(b"\x00\x00\x80?")
    folder = folder_of(tmp_path / "model", content=with_external(location, inside=inside))
    (folder / "sub").mkdir()
    with pytest.raises(BadModelFile):
        Manifest.read(folder).graph()


def test_data_beside_the_graph_is_taken_and_counts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", content=with_external("weights.data"))
    (folder / "weights.data").write_bytes(b"\x00\x00\x80?")
    before = Manifest.read(folder).graph()
    (folder / "weights.data").write_bytes(b"\x00\x00\x00@")
    assert Manifest.read(folder).graph().digest != before.digest


def test_a_checksum_is_held_against_the_graph(sound: Path) -> None:
    digest = Manifest.read(sound).graph().digest
    assert Manifest.read(sound).graph(digest).digest == digest
    (sound / "model.onnx").write_bytes(graph(2.0))
    with pytest.raises(BadModelFile, match="checksum"):
        Manifest.read(sound).graph(digest)


@pytest.mark.parametrize("sixty_fourth", range(64))
def test_a_graph_that_breaks_off_never_matches_its_checksum(tmp_path: Path, sixty_fourth: int) -> None:
    whole = graph(1.0)
    digest = Manifest.read(folder_of(tmp_path / "whole")).graph().digest
    folder = folder_of(tmp_path / "model", content=whole[: len(whole) * sixty_fourth // 64])
    with pytest.raises(BadModelFile):
        Manifest.read(folder).graph(digest)


def test_a_graph_in_another_notation_is_no_graph(tmp_path: Path) -> None:
    text = onnx.printer.to_text(onnx.load_model_from_string(graph())).encode()
    with pytest.raises(BadModelFile):
        Manifest.read(folder_of(tmp_path / "model", content=text)).graph()
