"""Plain FastAPI over sentence-transformers, as in tutorials: one `encode` a request, in the thread pool.

torch's threads are left at its default (one a core).
"""

from __future__ import annotations

import os
import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(os.environ["MODEL_DIR"], device="cpu")


class Input(BaseModel):
    input: str | list[str]


@app.post("/v1/embeddings")
def embeddings(body: Input) -> dict[str, object]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    return {"data": [{"index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]}


@app.get("/health")
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
