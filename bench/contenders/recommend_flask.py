"""The same bundle behind Flask and gunicorn, as document 002 was written: each request calls the recommender.

    BUNDLES=… COMPILED=… gunicorn -w 4 -b 127.0.0.1:PORT recommend_flask:app

It validates what it must to call it, computes by the same compiled code, keeps no line, no cache and no log.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, jsonify, request

from maru.services.recommend.bundles import Bundles
from maru.services.recommend.core.compiling import keep_compiled_in

keep_compiled_in(Path(os.environ["COMPILED"]))

from maru.services.recommend.core.recommender import Query  # noqa: E402

app = Flask(__name__)
bundles = Bundles(Path(os.environ["BUNDLES"]))
recommender = bundles.open(bundles.current() or "").recommender()
recommender.warm()
TYPES = {"clicks": 0, "carts": 1, "orders": 2}
WEIGHTS = {"clicks": 0.1, "carts": 0.3, "orders": 0.6}


def answer(session: dict[str, Any], top_k: int) -> dict[str, Any]:
    events = sorted(session["events"], key=lambda event: event["ts"])
    found = recommender.recommend(
        Query(
            np.array([event["aid"] for event in events], np.int64),
            np.array([event["ts"] for event in events], np.int64),
            np.array([TYPES[event["type"]] for event in events], np.int8),
            top_k,
            WEIGHTS,
        )
    )
    return {
        "session_id": session["session_id"],
        "recommendations": found.aids.tolist(),
        "scores": {name: scores.tolist() for name, scores in found.scores.items()},
    }


@app.post("/recommend")
def recommend() -> Any:
    body = request.get_json()
    return jsonify(answer(body, body.get("top_k", 20)))


@app.post("/batch_recommend")
def batch_recommend() -> Any:
    body = request.get_json()
    return jsonify({"results": [answer(session, body.get("top_k", 20)) for session in body["sessions"]]})


@app.get("/health")
def health() -> Any:
    return jsonify({"status": "healthy"})
