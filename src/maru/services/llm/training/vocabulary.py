"""Byte-level BPE: a tokenizer that is learnt from the text itself, and can spell any other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, BEGIN, END, TURN, TURN_END = SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
"""The first five ids of every vocabulary, in this order."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTINUING = "{% for message in messages %}{{ message['content'] }}{{ '' if loop.last else '\n\n' }}{% endfor %}"
"""The template of a model that knows no turns: it goes on where the conversation stops."""

LEAST = len(SPECIAL) + 256
"""Tokens of a vocabulary that knows nothing but bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """A tokenizer and its chat template.

    The words are split as GPT-2 splits them, which is what readers of a GGUF know by the name "gpt-2".
    """

    tokenizer: Tokenizer
    template: str = CONTINUING

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, template: str = CONTINUING) -> Vocabulary:
        """At most `size` tokens, fewer when the texts have no more to merge; LEAST at least."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer, template)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text).ids
        return found

    def text(self, ids: Iterable[int]) -> str:
        found: str = self.tokenizer.decode(list(ids))
        return found

    def id(self, token: str) -> int:
        """KeyError when there is no such token."""
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return found

    @property
    def tokens(self) -> list[str]:
        """All, by id."""
        by_id = sorted((number, token) for token, number in self.tokenizer.get_vocab().items())
        return [token for _, token in by_id]

    @property
    def merges(self) -> list[str]:
        """In the order in which they are applied, the two parts with a space between."""
        return [" ".join(pair) for pair in json.loads(self.to_json())["model"]["merges"]]

    def to_json(self) -> str:
        """What `tokenizer.json` holds."""
        found: str = self.tokenizer.to_str()
        return found
