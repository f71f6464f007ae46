"""The program that fits the weights: torch and numpy, nothing of Maru, so that any interpreter with torch can run it.

    python -P fitting.py FOLDER PARENT

FOLDER has `job.json` (a Job), `train.npy` and `held_out.npy` (token ids, one after the other). It tells how far it is
in lines of JSON: {"step", "loss"} of each step, with "held_out", a loss in nats a token, every now and then and at the
end. Then `weights.npz` is there. It ends with the process PARENT, and takes the folder with it. Equal input on one
machine, with equally many threads, gives equal weights.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from torch.nn import functional  # type: ignore[import-not-found, unused-ignore]

WARM_UP, GRADIENT, DECAY = 0.05, 1.0, 0.1
EVALUATIONS = 10
"""So often is a part of the held-out text measured on the way."""
SAMPLE = 16_384
"""Tokens of that part."""
SHORT = 0.75
"""This share of the steps reads windows of a quarter of the context, which is quicker; the rest reads whole ones."""

Tensor: TypeAlias = Any
"""torch's. Where this is type-checked there need not be a torch."""


@dataclass(frozen=True)
class Job:
    """`sizes` are the weights' shapes by their names in transformers; `batch` is in tokens."""

    sizes: dict[str, list[int]]
    layers: int
    heads: int
    key_heads: int
    context: int
    rope_base: float
    norm_epsilon: float
    steps: int
    batch: int
    rate: float
    seed: int
    threads: int


class Llama:
    """The weights, and the forward pass."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.weights: dict[str, Tensor] = {
            name: self._first(name, size).requires_grad_() for name, size in job.sizes.items()
        }
        half = job.sizes["model.embed_tokens.weight"][1] // job.heads // 2
        angles = torch.outer(torch.arange(job.context), job.rope_base ** (-torch.arange(half) / half))
        self._cos, self._sin = angles.cos(), angles.sin()

    def _first(self, name: str, size: list[int]) -> Tensor:
        if len(size) == 1:
            return torch.ones(size)
        ends_a_layer = name.endswith(("o_proj.weight", "down_proj.weight"))
        return torch.empty(size).normal_(std=0.02 / (2 * self.job.layers) ** 0.5 if ends_a_layer else 0.02)

    def loss(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """The mean loss of the tokens that follow, in nats."""
        state = functional.embedding(ids, self.weights["model.embed_tokens.weight"])
        for layer in range(self.job.layers):
            state = state + self._attention(f"model.layers.{layer}", state)
            state = state + self._feed(f"model.layers.{layer}", state)
        head = "lm_head.weight" if "lm_head.weight" in self.weights else "model.embed_tokens.weight"
        logits = functional.linear(self._norm("model.norm", state), self.weights[head])
        return functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())

    def _norm(self, name: str, state: Tensor) -> Tensor:
        return functional.rms_norm(state, state.shape[-1:], self.weights[f"{name}.weight"], self.job.norm_epsilon)

    def _linear(self, name: str, state: Tensor) -> Tensor:
        return functional.linear(state, self.weights[f"{name}.weight"])

    def _attention(self, layer: str, state: Tensor) -> Tensor:
        rows, length, width = state.shape
        normed = self._norm(f"{layer}.input_layernorm", state)

        def heads(name: str, count: int) -> Tensor:
            return self._linear(f"{layer}.self_attn.{name}", normed).view(rows, length, count, -1).transpose(1, 2)

        queries, keys = self._turned(heads("q_proj", self.job.heads)), self._turned(heads("k_proj", self.job.key_heads))
        values = heads("v_proj", self.job.key_heads)
        shared = self.job.heads // self.job.key_heads
        mixed = functional.scaled_dot_product_attention(
            queries, keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1), is_causal=True
        )
        return self._linear(f"{layer}.self_attn.o_proj", mixed.transpose(1, 2).reshape(rows, length, width))

    def _turned(self, heads: Tensor) -> Tensor:
        cos, sin = (part[: heads.shape[2]].to(heads.dtype) for part in (self._cos, self._sin))
        first, second = heads.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def _feed(self, layer: str, state: Tensor) -> Tensor:
        normed = self._norm(f"{layer}.post_attention_layernorm", state)
        gate = functional.silu(self._linear(f"{layer}.mlp.gate_proj", normed))
        return self._linear(f"{layer}.mlp.down_proj", gate * self._linear(f"{layer}.mlp.up_proj", normed))


class Fitting:
    """Muon for the matrices, which learns more of a token than AdamW does; AdamW for the embedding and the norms."""

    def __init__(self, job: Job, train: Tensor, held_out: Tensor) -> None:
        self.job, self.train, self.held_out = job, train, held_out
        self.model = Llama(job)
        matrices = [w for name, w in self.model.weights.items() if w.ndim == 2 and ".layers." in name]
        others = [w for name, w in self.model.weights.items() if w.ndim != 2 or ".layers." not in name]
        self.optimizers = (
            (torch.optim.Muon(matrices, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"), job.rate),
            (torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0), job.rate / 2),
        )
        self.bfloat16: bool = torch.cpu._is_avx512_bf16_supported()
        """Half the time, where the processor multiplies such numbers itself."""

    def run(self) -> None:
        between = max(1, self.job.steps // EVALUATIONS)
        for step, (ids, wanted) in enumerate(islice(self._windows(), self.job.steps), 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                loss = self.model.loss(ids, wanted)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.weights.values(), GRADIENT)
            for optimizer, rate in self.optimizers:
                optimizer.param_groups[0]["lr"] = rate * self._share(step)
                optimizer.step()
                optimizer.zero_grad()
            told = {"step": step, "loss": round(loss.item(), 4)}
            if step == self.job.steps:
                told["held_out"] = self.measured(self.held_out)
            elif step % between == 0:
                told["held_out"] = self.measured(self.held_out[:SAMPLE])
            print(json.dumps(told), flush=True)  # noqa: T201

    def _share(self, step: int) -> float:
        """Of the learning rate: up to 1 at first, then down to 0."""
        begun = self.job.steps * WARM_UP
        return min(step / max(begun, 1.0), (self.job.steps - step + 1) / (self.job.steps - begun + 1))

    def _windows(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self._cut(self.job.context // 4), int(self.job.steps * SHORT))
        yield from self._cut(self.job.context)

    def _cut(self, length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole text again and again, cut elsewhere and in another order each time."""
        rng = np.random.default_rng((self.job.seed, length))
        rows = max(1, self.job.batch // length)
        kept: list[int] = []
        while True:
            while len(kept) < rows:
                starts = np.arange(rng.integers(length), len(self.train) - length, length)
                kept += rng.permutation(starts).tolist()
            chosen, kept = kept[:rows], kept[rows:]
            both = torch.stack([self.train[start : start + length + 1] for start in chosen])
            yield both[:, :-1], both[:, 1:]

    def measured(self, tokens: Tensor) -> float:
        """The mean loss of these tokens in float32. Each window begins anew, knowing nothing of what was before it."""
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(tokens) - 1, self.job.context):
                part = tokens[start : start + self.job.context + 1]
                total += self.model.loss(part[None, :-1], part[None, 1:]).item() * (len(part) - 1)
        return round(total / (len(tokens) - 1), 5)

    def weights(self) -> dict[str, Any]:
        return {name: weight.detach().numpy() for name, weight in self.model.weights.items()}


def _leave_with(parent: int, folder: Path) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main(folder: Path, parent: int) -> None:
    threading.Thread(target=_leave_with, args=(parent, folder), daemon=True).start()
    job = Job(**json.loads((folder / "job.json").read_text("utf-8")))
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    torch.use_deterministic_algorithms(True)
    train, held_out = (torch.from_numpy(np.load(folder / f"{part}.npy")).long() for part in ("train", "held_out"))
    fitting = Fitting(job, train, held_out)
    fitting.run()
    np.savez(folder / "weights.npz", **fitting.weights())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
