"""What the forecast service says of itself, and the words in which it refuses (document 001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maru.http import problem
from maru.http.service import Service
from maru.services.forecast.schemas import Problem

NOT_LOADED = "모델이 로드되지 않았습니다. /reload를 시도하세요."
NOT_PREDICTED = "예측 실패: "
NOT_RELOADED = "모델 리로드 실패: "

_WORDS = {
    "missing": "필수 항목입니다",
    "extra_forbidden": "알 수 없는 항목입니다",
    "dict_type": "객체여야 합니다",
    "model_type": "객체여야 합니다",
    "model_attributes_type": "객체여야 합니다",
    "string_type": "문자열이어야 합니다",
    "string_too_short": "비어 있습니다",
    "string_too_long": "너무 깁니다",
}
_MALFORMED = frozenset({400, 413, 415})


def envelope(problem: problem.Problem) -> Mapping[str, Any]:
    """FastAPI's own shape, with the document's words for a model that is not loaded."""
    return {"detail": NOT_LOADED if problem.code == "MODEL_NOT_READY" else problem.message}


def of_predictions(problem: problem.Problem) -> Mapping[str, Any]:
    """As the document has every bad request for a prediction."""
    return {"detail": NOT_PREDICTED + _said(problem)} if problem.status in _MALFORMED else envelope(problem)


def of_reloads(problem: problem.Problem) -> Mapping[str, Any]:
    """As the document has every reload that failed."""
    failed = problem.status in _MALFORMED or problem.code == "RELOAD_FAILED"
    return {"detail": NOT_RELOADED + _said(problem)} if failed else envelope(problem)


def _said(problem: problem.Problem) -> str:
    if problem.code == "BAD_REQUEST":
        return f"본문이 올바른 JSON이 아닙니다 ({problem.message})"
    fields = problem.details.get("fields")
    if not fields:
        return problem.message
    told = [(field["loc"], _WORDS.get(field["type"], field["message"])) for field in fields[:3]]
    return "; ".join(f"{where}: {what}" if where else f"본문은 {what}" for where, what in told)


service = Service(
    name="forecast",
    title="LSTM Inference with MLflow PyFunc",
    version="2.0.0",
    description="The next Bitcoin close from a window of features, with the model that an alias of the MLflow "
    "registry points to. Every answer says which version made it.",
    port=8000,
    envelope=envelope,
    problem_schema=Problem,
    invalid_status=400,
    max_body_bytes=8 * 2**20,
)
