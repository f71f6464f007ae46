"""The forecaster behind plain FastAPI: with ONNX Runtime (MODEL=ort), or as MLflow has it (MODEL=pyfunc).

MODEL=ort|pyfunc MODEL_FOLDER=… python forecast_fastapi.py PORT
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
folder = os.environ["MODEL_FOLDER"]


class Payload(BaseModel):
    X: list[list[float]]


class Prediction(BaseModel):
    pred_btc_close_next: float


def window(payload: Payload) -> Any:
    """As [1, 12, 18] float32, checked as anyone who serves it would."""
    array = np.asarray(payload.X, np.float32)
    if array.shape != (12, 18) or not np.isfinite(array).all():
        raise HTTPException(400, "a window is 12 x 18 numbers")
    return array[None]


if os.environ["MODEL"] == "ort":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])

    @app.post("/predict")
    async def predict(payload: Payload) -> Prediction:
        return Prediction(pred_btc_close_next=session.run(None, {"x": window(payload)})[0].item())

else:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(folder)

    @app.post("/predict")
    def predict(payload: Payload) -> Prediction:
        found = model.predict(window(payload))
        array = next(iter(found.values())) if isinstance(found, dict) else np.asarray(found)
        return Prediction(pred_btc_close_next=float(array.reshape(-1)[0]))


@app.get("/health")
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
