"""What the style service says of itself, and the words in which it refuses (document 000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maru.http import problem
from maru.http.service import Service
from maru.services.style.schemas import Problem

_CODES = {
    "INVALID_INPUT": "BAD_REQUEST",
    "INVALID_TENSOR": "BAD_REQUEST",
    "INPUT_TOO_LONG": "PAYLOAD_TOO_LARGE",
    "RATE_LIMITED": "TOO_MANY_REQUESTS",
    "MODEL_FAILED": "INTERNAL_SERVER_ERROR",
    "INTERNAL_ERROR": "INTERNAL_SERVER_ERROR",
    "OUT_OF_MEMORY": "INSUFFICIENT_STORAGE",
    "NO_ROOM": "SERVICE_UNAVAILABLE",
    "SHUTTING_DOWN": "SERVICE_UNAVAILABLE",
    "AUTH_UNAVAILABLE": "SERVICE_UNAVAILABLE",
}
"""The document's words for what others call otherwise."""

_MESSAGES = {
    "BAD_REQUEST": "잘못된 요청 형식입니다",
    "UNAUTHORIZED": "API 키가 없거나 올바르지 않습니다.",
    "FORBIDDEN": "이 API 키로는 쓸 수 없습니다.",
    "NOT_FOUND": "그런 주소가 없습니다.",
    "METHOD_NOT_ALLOWED": "이 주소에는 그런 메서드가 없습니다.",
    "REQUEST_TIMEOUT": "요청 본문이 제때 오지 않았습니다.",
    "PAYLOAD_TOO_LARGE": "요청 본문이나 이미지가 너무 큽니다.",
    "UNSUPPORTED_MEDIA_TYPE": "지원하지 않는 Content-Type입니다.",
    "IMAGE_UNREADABLE": "이미지를 읽을 수 없습니다.",
    "TOO_MANY_REQUESTS": "동시 요청 한도를 초과했습니다.",
    "HEADERS_TOO_LARGE": "요청 헤더가 너무 큽니다.",
    "INTERNAL_SERVER_ERROR": "모델 추론 중에 오류가 났습니다.",
    "IMAGE_FETCH_FAILED": "이미지를 가져올 수 없습니다.",
    "MODEL_NOT_READY": "모델이 아직 로딩 중입니다.",
    "SERVICE_UNAVAILABLE": "지금은 서비스를 이용할 수 없습니다.",
    "TIMEOUT": "제한 시간 안에 끝나지 않았습니다.",
    "INSUFFICIENT_STORAGE": "메모리가 부족합니다.",
}

_WORDS = {
    "missing": "필수 항목입니다",
    "extra_forbidden": "알 수 없는 항목입니다",
    "dict_type": "객체여야 합니다",
    "model_type": "객체여야 합니다",
    "model_attributes_type": "객체여야 합니다",
    "list_type": "배열이어야 합니다",
    "string_type": "문자열이어야 합니다",
    "string_too_short": "비어 있습니다",
    "string_too_long": "너무 깁니다",
    "int_type": "정수여야 합니다",
    "float_type": "숫자여야 합니다",
    "bool_type": "true나 false여야 합니다",
}


def envelope(problem: problem.Problem) -> Mapping[str, Any]:
    """The document's error shape. What is wrong with a request is in the message; why an image can't be read or had,
    in the details."""
    code = _CODES.get(problem.code, problem.code)
    message = _MESSAGES.get(code, problem.message)
    if code == "BAD_REQUEST":
        message = f"{message}: {_said(problem)}"
    return {"error": code, "message": message, "details": problem.details}


def _said(problem: problem.Problem) -> str:
    fields = problem.details.get("fields")
    if not fields:
        return problem.message
    told = [(field["loc"], _WORDS.get(field["type"], field["message"])) for field in fields[:3]]
    return "; ".join(f"{where}: {what}" if where else what for where, what in told)


service = Service(
    name="style",
    title="DL API",
    version="v1.0.0",
    description="The style of furniture in texts and images, with the queue that the document promises. "
    "Every answer says which version of the model made it.",
    port=8002,
    envelope=envelope,
    problem_schema=Problem,
    invalid_status=400,
    max_body_bytes=15 * 2**20,
)
