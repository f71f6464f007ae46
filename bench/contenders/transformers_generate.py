"""transformers' `generate` behind FastAPI, as in tutorials: one request after the other, streamed as it comes.

python transformers_generate.py PORT FOLDER DTYPE THREADS
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

torch.set_num_threads(int(sys.argv[4]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=getattr(torch, sys.argv[3])).eval()
app = FastAPI()
turn = threading.Lock()


class Input(BaseModel):
    prompt: str
    max_tokens: int


def pieces(prompt: str, tokens: int) -> Iterator[str]:
    given = tokenizer(prompt, return_tensors="pt")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    with turn:
        thread = threading.Thread(
            target=model.generate,
            kwargs={
                **given, "streamer": streamer, "do_sample": False, "max_new_tokens": tokens, "min_new_tokens": tokens,
            },
        )  # fmt: skip
        thread.start()
        for text in streamer:
            if text:
                yield f"data: {json.dumps({'choices': [{'text': text, 'finish_reason': None}]})}\n\n"
        thread.join()
    yield f"data: {json.dumps({'choices': [{'text': '', 'finish_reason': 'length'}]})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': tokens}})}\n\ndata: [DONE]\n\n"


@app.post("/v1/completions")
def completions(body: Input) -> StreamingResponse:
    return StreamingResponse(pieces(body.prompt, body.max_tokens), media_type="text/event-stream")


@app.get("/health")
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
