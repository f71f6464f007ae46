"""What the OpenAI-compatible endpoints of all services share: the error shape and the list of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from maru.http.call import Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Problem

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIProblem(BaseModel):
    error: ErrorBody


def envelope(problem: Problem) -> dict[str, Any]:
    """OpenAI's error shape."""
    kind = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {"error": {"message": problem.message, "type": kind, "param": None, "code": problem.code.lower()}}


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "maru"


class ModelCards(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


@dataclass(frozen=True, slots=True)
class Models:
    """`/v1/models`: the names that `model` may have in a request, as `cards` knows them."""

    cards: Callable[[], list[ModelCard]]

    async def all(self, call: Caller) -> Reply:
        """The models that can be asked."""
        return Reply(ModelCards(data=self.cards()))

    async def one(self, call: Caller, model: str) -> Reply:
        """One model."""
        for card in self.cards():
            if card.id == model:
                return Reply(card)
        raise Problem(404, "MODEL_NOT_FOUND", "no model of that name")

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET", "/v1/models", self.all, ModelCards,
                limited=False, envelope=envelope, problem_schema=OpenAIProblem, tags=("openai",),
            ),
            Route(
                "GET", "/v1/models/{model:path}", self.one, ModelCard, (404,),
                limited=False, envelope=envelope, problem_schema=OpenAIProblem, tags=("openai",),
            ),
        ]  # fmt: skip
