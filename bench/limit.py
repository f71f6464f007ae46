"""The in-process limit: the same runtime with no server around it, its batches formed as well as can be.

A thread for each core runs the same packed ONNX session on texts that are all there from the start,
`inflight` at a time, as many as the clients of the served run keep in flight. Several ways to cut batches
are tried first and the best is measured. Tokenising is included; HTTP, JSON, queue, cache and credentials
are not. Prints JSON.

    python -m bench.limit int8 mixed --inflight 16 --seconds 6
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast, get_args

import numpy as np

from bench.contenders import CACHE, MODEL
from bench.texts import Kind, texts
from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.onnx.packed import pack
from maru.runtimes.onnx.precision import PrecisionName
from maru.runtimes.sentence_encoder import Encoder

THREADS = len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Policy:
    """Batches of at most `tokens`, alike in length within `spread` once they have `filled` tokens.

    `tokens` 0 cuts what is in flight in as many batches of equal tokens as there are threads.
    """

    tokens: int
    filled: int = 192
    spread: float = 1.6

    def cut(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices in batches."""
        budget = self.tokens or -(-sum(lengths) // THREADS)
        batch: list[int] = []
        total = 0
        for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            apart = self.tokens and total >= self.filled and lengths[batch[0]] > self.spread * lengths[index]
            if batch and (total + lengths[index] > budget or apart):
                yield batch
                batch, total = [], 0
            batch.append(index)
            total += lengths[index]
        if batch:
            yield batch


POLICIES = (Policy(0), Policy(256), Policy(512), Policy(1024), Policy(512, 384), Policy(1024, 384, 2.0))


class Machine:
    """The threads, and what they have done."""

    def __init__(self, encoder: Encoder, source: Iterator[str], inflight: int) -> None:
        self._encoder, self._source, self._inflight = encoder, source, inflight
        self._lock = threading.Lock()
        self._batches: Iterator[list[list[int]]] = iter(())
        self.done = 0

    def _next(self, policy: Policy) -> list[list[int]]:
        with self._lock:
            batch = next(self._batches, None)
            if batch is None:
                tokenizer = self._encoder.tokenizer
                ids = [tokenizer.cut(row) for row in tokenizer.encode(list(islice(self._source, self._inflight)))]
                self._batches = ([ids[i] for i in batch] for batch in policy.cut([len(row) for row in ids]))
                batch = next(self._batches)
            return batch

    def _work(self, policy: Policy, until: float) -> None:
        session, pooling = self._encoder._session, self._encoder.pooling
        while time.perf_counter() < until:
            batch = self._next(policy)
            vectors = session.run(pack(batch, [0] * len(batch), pooling))[0]
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            with self._lock:
                self.done += len(batch)

    def run(self, policy: Policy, seconds: float) -> tuple[float, float]:
        """(texts a second, CPU-ms a text)."""
        self.done = 0
        began, cpu = time.perf_counter(), time.process_time()
        threads = [threading.Thread(target=self._work, args=(policy, began + seconds)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        return self.done / took, 1000 * (time.process_time() - cpu) / self.done


def measure(precision: PrecisionName, kind: Kind, inflight: int, seconds: float, stream: str) -> dict[str, object]:
    """The best policy's figures."""
    encoder = Encoder(EncoderFolder.read(MODEL), precision, CACHE / "limit")
    machine = Machine(encoder, texts(kind, f"limit/{stream}"), inflight)
    machine.run(POLICIES[0], 0.5)
    tried = {policy: machine.run(policy, max(0.4, seconds / 8))[0] for policy in POLICIES}
    best = max(tried, key=lambda policy: tried[policy])
    rate, cpu = machine.run(best, seconds)
    return {
        "items_per_s": round(rate, 2),
        "cpu_ms_per_item": round(cpu, 4),
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "policy": f"{best.tokens or 'equal'} tokens, filled {best.filled}, spread {best.spread}",
    }


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", choices=["int8", "fp32"])
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--inflight", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--stream", default="0")
    given = parser.parse_args()
    kind = cast(Kind, given.kind)
    print(json.dumps(measure(given.precision, kind, given.inflight, given.seconds, given.stream)))


if __name__ == "__main__":
    main()
