"""What the generation service says of itself, and the words in which it refuses (document 004)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maru import __version__
from maru.http import problem
from maru.http.problem import Envelope
from maru.http.service import Service
from maru.services.llm.configuration import TIMEOUT_S
from maru.services.llm.schemas import Problem

_CODES = {"OUT_OF_MEMORY": "GPU_OUT_OF_MEMORY", "TIMEOUT": "INFERENCE_TIMEOUT"}
"""The document's own names for them."""

_SAID: Mapping[str, tuple[str | None, str]] = {
    "MODEL_NOT_FOUND": (None, "등록된 모델 목록: GET /api/v1/models"),
    "BENCHMARK_NOT_FOUND": (None, "벤치마크 목록: GET /api/v1/benchmark"),
    "STORE_UNAVAILABLE": (None, "{after}초 후에 다시 시도하세요."),
    "OUT_OF_MEMORY": (
        "GPU VRAM 부족. 다른 모델을 언로드 후 재시도하세요.",
        "현재 로드된 모델을 확인하세요: GET /api/v1/models",
    ),
    "TIMEOUT": (
        "추론이 {timeout:g}초 내에 완료되지 않았습니다.",
        "max_tokens를 줄이거나 prompt 길이를 조정하세요.",
    ),
    "TOO_MANY_REQUESTS": ("요청이 너무 많아 대기열에 자리가 없습니다.", "{after}초 후에 다시 시도하세요."),
    "RATE_LIMITED": ("허용된 요청 수를 초과했습니다.", "{after}초 후에 다시 시도하세요."),
    "MODEL_NOT_READY": ("모델이 아직 준비되지 않았습니다.", "{after}초 후에 다시 시도하세요."),
    "NO_ROOM": (
        "로드된 모델이 모두 사용 중이어서 이 모델을 로드할 수 없습니다.",
        "{after}초 후에 다시 시도하거나 로드된 모델을 사용하세요: GET /api/v1/models",
    ),
    "MODEL_IN_USE": ("모델이 사용 중이어서 언로드할 수 없습니다.", "{after}초 후에 다시 시도하세요."),
    "MODEL_LOAD_FAILED": (
        "모델을 로드하지 못했습니다.",
        "모델 파일의 상태를 확인하세요: GET /api/v1/models",
    ),
    "MODEL_FAILED": ("모델이 응답하지 못했습니다.", "잠시 후 다시 시도하세요."),
    "INPUT_TOO_LONG": (
        None,
        "prompt를 줄이거나 context_length가 더 큰 모델을 사용하세요: GET /api/v1/models",
    ),
    "INVALID_INPUT": (None, "요청 형식을 확인하세요: /docs"),
    "BAD_REQUEST": (None, "요청 형식을 확인하세요: /docs"),
    "UNSUPPORTED_MEDIA_TYPE": (None, "Content-Type: application/json으로 보내세요."),
    "PAYLOAD_TOO_LARGE": (None, "요청 본문을 줄이세요."),
    "UNAUTHORIZED": ("인증이 필요합니다.", "Authorization: Bearer <API key> 헤더를 보내세요."),
    "FORBIDDEN": ("이 키에는 권한이 없습니다.", "권한이 있는 키를 사용하세요."),
    "NOT_FOUND": ("없는 경로입니다.", "API 문서를 확인하세요: /docs"),
    "METHOD_NOT_ALLOWED": ("허용되지 않는 메서드입니다.", "API 문서를 확인하세요: /docs"),
    "SHUTTING_DOWN": ("서버가 종료 중입니다.", "{after}초 후에 다시 시도하세요."),
    "INTERNAL_ERROR": ("서버 내부 오류가 발생했습니다.", "X-Request-ID와 함께 관리자에게 문의하세요."),
}
_OTHERWISE = (None, "API 문서를 확인하세요: /docs")
_WORDS = {
    "missing": "필수 항목입니다",
    "extra_forbidden": "알 수 없는 항목입니다",
    "model_attributes_type": "객체여야 합니다",
    "string_type": "문자열이어야 합니다",
    "string_too_short": "비어 있습니다",
    "string_too_long": "너무 깁니다",
    "int_type": "정수여야 합니다",
    "float_type": "숫자여야 합니다",
    "list_type": "배열이어야 합니다",
    "too_long": "너무 많습니다",
}


def documented(timeout_s: float) -> Envelope:
    """The document's error shape, for answers that may take so many seconds."""

    def envelope(problem: problem.Problem) -> Mapping[str, Any]:
        message, suggestion = _SAID.get(problem.code, _OTHERWISE)
        after = problem.details.get("retry_after") or problem.headers.get("retry-after", "1")
        values = {"timeout": timeout_s, "after": after}
        return {
            "success": False,
            "error": {
                "code": _CODES.get(problem.code, problem.code),
                "message": _told(problem) if message is None else message.format_map(values),
                "suggestion": suggestion.format_map(values),
                "details": problem.details,
            },
        }

    return envelope


def _told(problem: problem.Problem) -> str:
    """Its own message; of a body that does not match its schema, which fields, and what they should be."""
    fields = problem.details.get("fields")
    if not fields:
        return problem.message
    told = [(field["loc"], _WORDS.get(field["type"], field["message"])) for field in fields[:3]]
    return "; ".join(f"{where}: {what}" if where else f"본문은 {what}" for where, what in told)


service = Service(
    name="ai",
    title="AI API",
    version=__version__,
    description="Text from language models, whole or as it is made. Requests for one model are computed together; "
    "the models that are asked for are in memory, as many as there is room for.",
    port=8000,
    envelope=documented(TIMEOUT_S),
    problem_schema=Problem,
    max_body_bytes=4 * 2**20,
)


def declared(timeout_s: float) -> Service:
    """The service, with the deadline of its answers."""
    return replace(service, envelope=documented(timeout_s))
