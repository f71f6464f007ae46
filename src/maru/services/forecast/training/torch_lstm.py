"""The same network, trained by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from maru.services.forecast.training.lstm import Schedule, Values, Weights


def train(
    train: tuple[Values, Values],
    validation: tuple[Values, Values],
    schedule: Schedule,
    tick: Callable[[], None],
) -> Weights:
    """The `Trainer` of `lstm.train`'s schedule, in torch: Adam with decoupled decay on Huber's loss."""
    torch: Any = import_module("torch")
    with torch.random.fork_rng(devices=[]), _one_thread(torch):
        torch.manual_seed(schedule.seed)
        windows, targets, held, wanted = (torch.from_numpy(np.ascontiguousarray(v)) for v in (*train, *validation))
        memory = torch.nn.LSTM(windows.shape[2], schedule.hidden, batch_first=True)
        head = torch.nn.Linear(schedule.hidden, 1)
        with torch.no_grad():
            memory.bias_hh_l0.zero_()
            memory.bias_ih_l0.zero_()[schedule.hidden : 2 * schedule.hidden] = 1
        learnt = [*memory.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(learnt, lr=schedule.rate, weight_decay=schedule.decay)
        loss_of = torch.nn.HuberLoss()

        def answers(part: Any) -> Any:
            return head(memory(part)[0][:, -1])[:, 0]

        best, kept, stale = float("inf"), _weights(memory, head), 0
        for _ in range(schedule.epochs):
            for part in torch.randperm(len(windows)).split(schedule.batch):
                optimizer.zero_grad()
                loss_of(answers(windows[part]), targets[part]).backward()
                torch.nn.utils.clip_grad_norm_(learnt, schedule.most_gradient)
                optimizer.step()
            tick()
            with torch.no_grad():
                loss = float(loss_of(answers(held), wanted))
            best, kept, stale = (loss, _weights(memory, head), 0) if loss < best else (best, kept, stale + 1)
            if stale >= schedule.patience:
                break
    return kept


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Matrices this small gain nothing from threads, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _weights(memory: Any, head: Any) -> Weights:
    """torch's gates are in our order, and its two biases are one."""
    bias = memory.bias_ih_l0 + memory.bias_hh_l0
    found = (memory.weight_ih_l0.T, memory.weight_hh_l0.T, bias, head.weight[0], head.bias)
    return Weights(*(values.detach().numpy().copy() for values in found))
