"""Bare FastAPI on uvicorn with uvloop and httptools: the floor. It can't batch: `device` runs one by one."""

from __future__ import annotations

import sys

import models
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
device = models.Device()


class Input(BaseModel):
    data: list[list[float]]


class Output(BaseModel):
    value: float


if models.chosen() == "echo":

    @app.post("/predict")
    async def predict(body: Input) -> Output:
        return Output(value=models.value(body.data))

else:

    @app.post("/predict")
    def predict(body: Input) -> Output:
        return Output(value=device([body.data])[0])


@app.get("/health")
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
