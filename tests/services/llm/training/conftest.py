"""llama.cpp and transformers as judges of what was written, each in a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

_LLAMA = """
import json, os, sys
import xllamacpp
asked = xllamacpp.CommonParams()
asked.model.path = sys.argv[1]
asked.n_ctx, asked.n_parallel, asked.verbosity, asked.cache_ram_mib = 512, 1, -1, 0
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
asked.hostnames = [sys.argv[2]]
server = xllamacpp.Server(asked)
for body in json.load(sys.stdin):
    chat = "messages" in body
    print(json.dumps((server.handle_chat_completions if chat else server.handle_completions)(body)), flush=True)
os._exit(0)
"""

_TRANSFORMERS = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
for prompt in json.load(sys.stdin):
    if isinstance(prompt, list):
        prompt = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1]:]
    text = tokenizer.decode(made, skip_special_tokens=True)
    print(json.dumps({"prompt": prompt, "ids": ids[0].tolist(), "made": text}), flush=True)
"""


def completions(gguf: Path, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp answers."""
    with tempfile.TemporaryDirectory() as folder:
        found = _answers([sys.executable, "-c", _LLAMA, str(gguf), f"{folder}/llm.sock"], bodies)
    assert not [answer for answer in found if "error" in answer], found
    return found


def greedy(gguf: Path, prompts: list[Any], tokens: int = 24) -> list[dict[str, Any]]:
    return completions(gguf, [{"prompt": prompt, "max_tokens": tokens, "temperature": 0} for prompt in prompts])


def generated(folder: Path, prompts: list[Any], python: str) -> list[dict[str, Any]]:
    """What transformers makes of them, greedily, and the tokens that it makes of the prompts."""
    return _answers([python, "-c", _TRANSFORMERS, str(folder)], prompts)


def _answers(command: list[str], asked: Any) -> list[dict[str, Any]]:
    quiet = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, input=json.dumps(asked), env={**os.environ, **quiet}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def torch_python() -> Path:
    python = os.environ.get("MARU_REFERENCE_PYTHON")
    if not python:
        pytest.skip("MARU_REFERENCE_PYTHON names no Python that has torch and transformers")
    return Path(python)


@pytest.fixture(scope="session")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text whose sentences are all made alike, so that there is something to learn in a few seconds."""
    rng = random.Random(0)
    who, what, whom = ("cat", "dog", "fox", "owl"), ("sees", "likes", "calls"), ("the moon", "a boat", "the old king")

    def sentence() -> str:
        return f"Every {rng.choice(who)} {rng.choice(what)} {rng.choice(whom)} in the morning."

    path = tmp_path_factory.mktemp("text") / "tale.txt"
    path.write_text("\n\n".join(" ".join(sentence() for _ in range(5)) for _ in range(300)))
    return path
