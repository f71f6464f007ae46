"""Tokens as text."""

from typing import Any

from tokenizers.decoders import DecodeStream
from transformers.convert_slow_tokenizer import bytes_to_unicode  # type: ignore[import-not-found]

ALPHABET = {letter: byte for byte, letter in bytes_to_unicode().items()}
"""The letters that tokens of bytes are written with."""


class Text:
    """Tokens as text, whole characters at a time, up to a stop string."""

    def __init__(self, tokenizer: Any, stop: list[str]) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._decoding = DecodeStream(skip_special_tokens=True)
        self._stop = [each for each in stop if each]
        self._held = ""
        self.stopped = False

    def take(self, token: int) -> str:
        """What can be said now: not what may yet become a stop string."""
        self._held += self._decoding.step(self._tokenizer, token) or ""
        ends = [at for each in self._stop if (at := self._held.find(each)) >= 0]
        if ends:
            self.stopped = True
            said, self._held = self._held[: min(ends)], ""
            return said
        keep = max((self._overlap(each) for each in self._stop), default=0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return said

    def rest(self) -> str:
        said, self._held = self._held, ""
        return said

    def _overlap(self, stop: str) -> int:
        """How much of the end is the beginning of that stop string."""
        return next((n for n in range(min(len(stop), len(self._held)), 0, -1) if self._held.endswith(stop[:n])), 0)


def alone(tokenizer: Any, token: int) -> tuple[str, bytes]:
    """A token by itself, and its bytes, which need not be whole characters."""
    text = tokenizer.decode([token])
    if "\ufffd" not in text:
        return text, text.encode()
    piece = tokenizer.convert_ids_to_tokens(token)
    if len(piece) == 6 and piece.startswith("<0x"):
        return text, bytes([int(piece[3:5], 16)])
    return text, bytes(ALPHABET.get(letter, 0x3F) for letter in piece)
