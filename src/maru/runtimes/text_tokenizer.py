"""Texts to token ids, cut to the model's window."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.errors import BadModelFile


class TextTokenizer:
    """A folder's tokenizer. Encoding frees the GIL, and may be called from several threads.

    `max_tokens` counts the special tokens, as sentence-transformers counts them.
    """

    def __init__(self, folder: EncoderFolder, max_tokens: int, vocabulary: int) -> None:
        """`vocabulary` is how many rows the model's embedding table has."""
        try:
            tokenizer = Tokenizer.from_file(str(folder.tokenizer))
        except Exception:
            raise BadModelFile(f"{folder.tokenizer.name} is no tokenizer") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if folder.lowercase:
            before = [tokenizer.normalizer] if tokenizer.normalizer else []
            tokenizer.normalizer = Normalizers([Lowercase(), *before])
        self._tokenizer = tokenizer
        self._cut_left = folder.cut_left
        self._vocabulary = vocabulary
        self.max_tokens = max_tokens
        self.strays = tokenizer.get_vocab_size(with_added_tokens=True) > vocabulary
        """Whether text can give ids that the model has no embedding for."""
        special = tokenizer.encode("a").special_tokens_mask
        self._before = next((i for i, mark in enumerate(special) if not mark), 0)
        self._after = next((i for i, mark in enumerate(reversed(special)) if not mark), 0)
        if max_tokens <= self._before + self._after:
            raise BadModelFile(f"a window of {max_tokens} tokens leaves no room for text")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, special tokens and all, not cut. ValueError when one is not Unicode."""
        try:
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        except TypeError:
            raise ValueError("the text is not valid Unicode") from None

    def cut(self, ids: list[int]) -> list[int]:
        """At most `max_tokens` of these ids, with the special tokens at either end kept."""
        if len(ids) <= self.max_tokens:
            return ids
        if self._cut_left:
            return ids[: self._before] + ids[len(ids) - self.max_tokens + self._before :]
        return ids[: self.max_tokens - self._after] + ids[len(ids) - self._after :]

    def knows(self, ids: Sequence[int]) -> bool:
        """Whether there are ids, and the model has an embedding for each."""
        return bool(ids) and min(ids) >= 0 and max(ids) < self._vocabulary

    def prompt_length(self, prompt: str) -> int:
        """How many of a text's first ids are its prompt's, as sentence-transformers counts them."""
        (ids,) = self.encode([prompt])
        return len(ids) - (self._after > 0)
