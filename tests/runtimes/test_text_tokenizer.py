from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.errors import BadModelFile
from maru.runtimes.text_tokenizer import TextTokenizer

from .conftest import Recorded
from .small_encoder import WORDS, small_encoder


@pytest.mark.parametrize("window", [3, 4, 16, 100, 256, 512])
@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_are_cut_as_the_library_cuts_them(
    window: int, side: str, minilm: EncoderFolder, minilm_reference: Recorded, tmp_path: Path
) -> None:
    texts = minilm_reference.texts[:60]
    library = Tokenizer.from_file(str(minilm.tokenizer))
    library.no_padding()
    library.enable_truncation(window, direction=side)
    folder = EncoderFolder.read(small_encoder(tmp_path, special={"truncation_side": side}))
    (tmp_path / "tokenizer.json").write_bytes(minilm.tokenizer.read_bytes())
    ours = TextTokenizer(folder, window, 30522)
    assert [ours.cut(ids) for ids in ours.encode(texts)] == [each.ids for each in library.encode_batch(texts)]
    assert any(len(ids) > window for ids in ours.encode(texts))


def test_settings_left_in_the_file_are_not_followed(tmp_path: Path) -> None:
    """Some tokenizer.json were saved with padding to a length and truncation on."""
    folder = EncoderFolder.read(small_encoder(tmp_path))
    saved = Tokenizer.from_file(str(folder.tokenizer))
    saved.enable_padding(length=50)
    saved.enable_truncation(4)
    saved.save(str(folder.tokenizer))
    (ids,) = TextTokenizer(folder, 32, len(WORDS)).encode(["w1 w2 w3 w4 w5"])
    assert ids == [2, 5, 6, 7, 8, 9, 3]


def test_lower_case_where_the_folder_asks_for_it(tmp_path: Path) -> None:
    plain = EncoderFolder.read(small_encoder(tmp_path / "a"))
    lower = EncoderFolder.read(small_encoder(tmp_path / "b", transformer={"do_lower_case": True}))
    encoded = [TextTokenizer(folder, 32, len(WORDS)).encode(["W1"])[0] for folder in (plain, lower)]
    assert encoded == [[2, 1, 3], [2, 5, 3]]


def test_text_that_is_not_unicode(small: Path) -> None:
    tokenizer = TextTokenizer(EncoderFolder.read(small), 32, len(WORDS))
    with pytest.raises(ValueError, match="Unicode"):
        tokenizer.encode(["w1", "\ud800"])


def test_ids_that_the_model_has_no_embedding_for(small: Path) -> None:
    folder = EncoderFolder.read(small)
    assert not TextTokenizer(folder, 32, len(WORDS)).strays
    short = TextTokenizer(folder, 32, len(WORDS) - 1)
    assert short.strays and short.knows([0, 5]) and not short.knows(short.encode(["w59"])[0])
    assert not short.knows([]) and not short.knows([-1])


def test_a_file_that_is_no_tokenizer(small: Path) -> None:
    folder = EncoderFolder.read(small)
    for content in (b"", b"{}", b"not json", b"\x80\x04pickle"):
        folder.tokenizer.write_bytes(content)
        with pytest.raises(BadModelFile, match=r"tokenizer\.json"):
            TextTokenizer(folder, 32, len(WORDS))


def test_a_window_without_room_for_text(small: Path) -> None:
    with pytest.raises(BadModelFile, match="window"):
        TextTokenizer(EncoderFolder.read(small), 2, len(WORDS))
