"""What a model wants put before a text, by what its vector is for."""

from __future__ import annotations

from typing import NamedTuple

from maru.engine.errors import InputError
from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.text_tokenizer import TextTokenizer

DOCUMENT_NAMES = ("document", "passage", "corpus")
"""The names that models give the prompt for what is searched."""


class Prompt(NamedTuple):
    """The words, and how many tokens at the start of a text with them are left out of its vector."""

    words: str = ""
    skip: int = 0


class Prompts:
    """A folder's prompts. `query` and `document` are always tasks, if without a prompt."""

    def __init__(self, folder: EncoderFolder, tokenizer: TextTokenizer) -> None:
        words = {"query": "", "document": "", **folder.prompts}
        words["document"] = next((words[name] for name in DOCUMENT_NAMES if words.get(name)), "")
        self._prompts: dict[str | None, Prompt] = {None: Prompt()}
        for task, text in words.items():
            skip = tokenizer.prompt_length(text) if text and not folder.pool_prompt else 0
            self._prompts[task] = Prompt(text, skip)
        self._prompts[None] = self._prompts[folder.default_task]
        self.tasks = sorted(words)

    def of(self, task: str | None) -> Prompt:
        """The prompt of a task, or of none. InputError for a task that the model does not know."""
        try:
            return self._prompts[task]
        except KeyError:
            raise InputError(f"unknown task; this model knows: {', '.join(self.tasks)}") from None
