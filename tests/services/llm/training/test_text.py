from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from maru.services.llm.training.errors import TrainingError
from maru.services.llm.training.text import Text, unwrapped

PARAGRAPH = "It was the best of times, it was the worst of times, and so on it went. " * 10


def test_a_paragraph_becomes_one_line() -> None:
    assert (
        unwrapped("CHAPTER I\r\n\r\n\r\nOne\r\ntwo  three\r\n \t\r\nfour\r\n") == "CHAPTER I\n\nOne two three\n\nfour"
    )


def test_the_end_of_each_file_is_held_out_and_taught_nowhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        parts = [f"{name}{number} {PARAGRAPH}" for number in range(100)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(parts))
    (tmp_path / "notes.md").write_text("not this")
    text = Text.read(tmp_path)
    assert text.files == ("a.txt", "b.txt")
    for name, learnt, held_out in zip("ab", text.train, text.held_out, strict=True):
        assert learnt.startswith(f"{name}0 ") and f"{name}99 " in held_out
        heads = [part.split()[0] for part in (learnt + "\n\n" + held_out).split("\n\n")]
        assert heads == [f"{name}{number}" for number in range(100)]
        assert 0.04 < len(held_out) / len(learnt + held_out) < 0.07


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    content = ("\n\n".join([PARAGRAPH] * 100)).encode()
    (tmp_path / "one.txt").write_bytes(content)
    assert Text.read(tmp_path / "one.txt").sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"short", "too little text"),
        (PARAGRAPH.encode() * 100, "too little text"),  # one paragraph: nothing could be held out of it
        (b"\xff\xfe" * 50_000, "not UTF-8: byte 0"),
    ],
)
def test_what_is_no_text_to_learn_from_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "one.txt"
    file.write_bytes(content)
    with pytest.raises(TrainingError, match=said):
        Text.read(file)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="can't be read"):
        Text.read(tmp_path / "none.txt")
    with pytest.raises(TrainingError, match=r"no \.txt file"):
        Text.read(tmp_path)
