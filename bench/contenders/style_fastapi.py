"""The starter behind plain FastAPI. `python style_fastapi.py PORT`"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from style_model import Matcher

app = FastAPI()
matcher = Matcher()


class Text(BaseModel):
    text: str


class Match(BaseModel):
    style: str
    score: float
    confidence: float


class Scored(BaseModel):
    score: float
    confidence: float
    style: str
    matches: list[Match]
    model_version: str


class Item(BaseModel):
    id: str
    text: str


class Batch(BaseModel):
    items: list[Item]
    batch_size: int = 10


class Result(BaseModel):
    id: str
    score: float
    confidence: float
    style: str
    matches: list[Match]


class Results(BaseModel):
    results: list[Result]
    total_processed: int


@app.post("/infer")
async def infer(body: Text) -> Scored:
    return Scored(**matcher.one(body.text))


@app.post("/infer/batch")
async def infer_batch(body: Batch) -> Results:
    return Results(**matcher.many([item.model_dump() for item in body.items]))


@app.get("/health")
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
