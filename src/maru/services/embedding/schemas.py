"""What is sent to the embedding service and what comes back (document 003, and OpenAI's embeddings API)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, WithJsonSchema

MAX_TEXTS = 2048
MAX_CHARACTERS = 200_000
MAX_TOKENS = 32_768


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return text


_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": r"\S"}

Text = Annotated[
    StrictStr,
    Field(min_length=1, max_length=MAX_CHARACTERS),
    AfterValidator(_not_blank),
    WithJsonSchema(_TEXT_SCHEMA),
]
Dimensions = Annotated[StrictInt, Field(ge=1, le=65_536)]
TokenId = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]


class Strict(BaseModel):
    """A request: a field that it does not have is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid")


class Options(Strict):
    """How texts are to be embedded."""

    task: Annotated[StrictStr, Field(max_length=64)] | None = Field(
        None, description="What the vectors are for: `query`, `document`, or another of the model's prompts."
    )
    dimensions: Dimensions | None = Field(
        None, description="A shorter vector (Matryoshka), where the model was trained for it."
    )
    normalize: StrictBool = Field(True, description="Scale vectors to length 1.")
    truncate: StrictBool = Field(True, description="Cut text beyond the model's window; `false` refuses it (413).")


class EmbedRequest(Options):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "안녕하세요, 반갑습니다!"}]})

    text: Text


class EmbedResponse(BaseModel):
    embedding: list[float]
    dimension: int
    model: str
    tokens: int


class BatchEmbedRequest(Options):
    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["첫 번째", "두 번째", "세 번째"]}]})

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class BatchEmbedResponse(BaseModel):
    """`embeddings[i]` is that of `texts[i]`."""

    embeddings: list[list[float]]
    dimension: int
    count: int
    model: str
    tokens: int


class TokenizeRequest(Strict):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class TokenizeResponse(BaseModel):
    """`tokens[i]` are the ids of `texts[i]`, with the special tokens, not cut."""

    tokens: list[list[int]]
    counts: list[int]
    model: str


class HealthResponse(BaseModel):
    """`status` is healthy as long as the process answers; `model_loaded` says whether texts can be embedded."""

    status: Literal["healthy"] = "healthy"
    model_loaded: bool
    model: str
    quantization: str
    dimension: int | None = None
    max_seq_length: int | None = None


class Problem(BaseModel):
    """Every error of this service."""

    detail: str


class EmbeddingsRequest(Strict):
    """OpenAI's request: one text, several, or the token ids of one or several."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    model: Annotated[StrictStr, Field(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Dimensions | None = None
    user: StrictStr | None = Field(None, max_length=512)

    def contents(self) -> list[str | tuple[int, ...]]:
        """The texts or token ids, one an embedding."""
        given: Any = self.input
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [tuple(given)]
        return [each if isinstance(each, str) else tuple(each) for each in given]


class EmbeddingObject(BaseModel):
    """`embedding` is a list of numbers, or base64 of little-endian float32 where that was asked for."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: Usage
