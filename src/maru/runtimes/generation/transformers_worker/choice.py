"""How next tokens are chosen: each request as it asks, in a batch that they share."""

from typing import Any

import torch  # type: ignore[import-not-found]
from transformers.generation.continuous_batching import cb_logits_processors  # type: ignore[import-not-found]

COLDEST = 1e-6
"""The lowest temperature that is told from 0."""


class Choice:
    """How one request's next token is chosen from a row of scores, and what is told of it."""

    def __init__(self, asked: dict[str, Any], defaults: dict[str, float], prompt: list[int]) -> None:
        def given(name: str, default: float) -> float:
            value = asked.get(name)
            return float(defaults.get(name, default) if value is None else value)

        self.temperature = given("temperature", 0.0)
        self.top_k, self.top_p, self.min_p = int(given("top_k", 0)), given("top_p", 1.0), min(given("min_p", 0.0), 1.0)
        self.repeat = given("repeat_penalty", 1.0)
        self.presence, self.frequency = given("presence_penalty", 0.0), given("frequency_penalty", 0.0)
        self.bias = [(int(token), float(bias)) for token, bias in asked.get("logit_bias") or ()]
        self.seed = asked.get("seed")
        self.top = asked.get("top_logprobs", asked.get("logprobs") or 0) if asked.get("logprobs") else None
        self.prompt = prompt
        self.told: list[tuple[float, list[tuple[int, float]]]] = []
        penalized = self.repeat != 1.0 or self.presence or self.frequency or self.bias
        self.plain = not (self.temperature >= COLDEST or penalized or self.top is not None)
        """Whether the likeliest token is to be taken, and nothing told of it."""

    def choose(self, scores: Any, generated: list[int]) -> int:
        scores = self._penalized(scores.float(), generated)
        token = int(self._drawn(scores, len(generated)))
        if self.top is not None:
            logs = torch.log_softmax(scores, -1)
            best = torch.topk(logs, min(self.top, logs.shape[-1]))
            self.told.append((float(logs[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))))
        return token

    def _penalized(self, scores: Any, generated: list[int]) -> Any:
        scores = scores.clone()
        for token, bias in self.bias:
            if 0 <= token < len(scores):
                scores[token] += bias
        if self.repeat != 1.0:
            seen = torch.tensor(sorted({*self.prompt, *generated}), device=scores.device)
            found = scores[seen]
            scores[seen] = torch.where(found > 0, found / self.repeat, found * self.repeat)
        if (self.presence or self.frequency) and generated:
            tokens, counts = torch.unique(torch.tensor(generated, device=scores.device), return_counts=True)
            scores[tokens] -= self.presence + self.frequency * counts
        return scores.nan_to_num().clamp(-1e30, 1e30)  # what can't be drawn from would end the manager

    def _drawn(self, scores: Any, step: int) -> Any:
        if self.temperature < COLDEST:
            return scores.argmax()
        order = None
        if self.top_k > 0 or self.top_p < 1.0:
            scores, order = torch.topk(scores, min(self.top_k or len(scores), len(scores)))
        odds = torch.softmax(scores / self.temperature, -1)
        if self.top_p < 1.0:
            odds = odds.masked_fill(odds.cumsum(-1) - odds > self.top_p, 0.0)
        if self.min_p > 0:
            odds = odds.masked_fill(odds < self.min_p * odds.max(), 0.0)
        generator = None
        if self.seed is not None:
            generator = torch.Generator(scores.device)
            generator.manual_seed((int(self.seed) << 20) + step)
        drawn = torch.multinomial(odds, 1, generator=generator)
        return drawn if order is None else order[drawn]


class Chooser(cb_logits_processors.ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """Leaves of each row of scores what that row's request chooses."""

    supported_kwargs = {"choice": Choice}  # noqa: RUF012
    ignored_kwargs = ()
    states: list[Any] = []  # noqa: RUF012

    @classmethod
    def install(cls, processors: Any) -> None:
        """Have it choose, and nobody else."""
        processors.clear()
        processors.logits_processor.append(cls())
        processors.tensors_required, processors.do_processing = 1, True
        processors._retrieve_processors_kwargs()

    def fill_defaults(self, row: Any) -> None:
        row.fill_(0)

    def prepare_tensor_args(self, requests: list[Any]) -> Any:
        self.states = [request.state for request in requests]
        return torch.zeros(len(requests), dtype=torch.int32)

    def __call__(self, scores: Any, _: Any) -> Any:
        for row, state in enumerate(self.states):
            choice = state.logit_processor_kwargs["choice"]
            if not choice.plain:
                token = choice.choose(scores[row], state.generated_tokens)
                scores[row] = float("-inf")
                scores[row, token] = 0.0
        return scores
