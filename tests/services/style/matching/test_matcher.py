from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from maru.runtimes.errors import BadModelFile
from maru.runtimes.json_file import JsonFile
from maru.services.style.files import Files
from maru.services.style.matching.matcher import VOCABULARY, WEIGHTS, TextMatcher

BIAS = np.array([-3.0, -4.0], np.float32)


def matcher() -> TextMatcher:
    return TextMatcher(["모던", " 빈", "소파"], np.array([[5, 0], [0, 6], [0.5, 0.25]], np.float32), BIAS)


def test_evidence_is_the_sum_of_what_is_known():
    answers, embeddings = matcher().answers(["모던한 소파", "빈티지 빈티지 소파", "무엇", ""])
    assert answers.tolist() == [[2.5, -3.75], [-2.5, 2.25], [-3, -4], [-3, -4]]
    assert embeddings is None


def test_a_text_is_read_alike_whatever_is_beside_it():
    texts = ["모던한 소파", "소파", "x" * 5000]
    together = matcher().answers(texts)[0]
    assert (together == np.concatenate([matcher().answers([text])[0] for text in texts])).all()


def test_any_text_is_read():
    assert np.isfinite(matcher().answers(["\ud800", "\0", "a" * 100_000, "ﷺ" * 100])[0]).all()


def files(folder: Path, weights: np.ndarray, vocabulary: object) -> Files:
    import hashlib

    save_file({"weights": weights, "bias": BIAS}, folder / WEIGHTS)
    (folder / VOCABULARY).write_text(json.dumps(vocabulary))
    listed = {
        name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} for name in (WEIGHTS, VOCABULARY)
    }
    return Files(folder, JsonFile("bundle.json", {"files": listed}))


def test_from_files(tmp_path):
    weights = np.array([[5, 0], [0, 6]], np.float16)
    opened = TextMatcher.open(files(tmp_path, weights, ["모던", " 빈"]), 2)
    assert opened.answers(["모던"])[0].tolist() == [[2, -4]]


@pytest.mark.parametrize("vocabulary", [["모던"], ["a", "b", "c"], {"a": 1, "b": 2}, ["a", 2]])
def test_files_that_do_not_go_together(tmp_path, vocabulary):
    with pytest.raises(BadModelFile):
        TextMatcher.open(files(tmp_path, np.zeros((2, 2), np.float32), vocabulary), 2)
    with pytest.raises(BadModelFile):
        TextMatcher.open(files(tmp_path, np.zeros((2, 2), np.float32), ["a", "b"]), 3)
