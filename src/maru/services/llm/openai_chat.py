"""What is sent to OpenAI's door for chats: messages, and the tools and the form that an answer may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from maru.runtimes.generation.types import Prompt
from maru.services.llm.openai_schemas import MAX_LOGPROBS, Label, Sampled
from maru.services.llm.schemas import MAX_CHARACTERS, MaxTokens, Strict

MAX_MESSAGES = 1024
MAX_TOOLS = 128


class TextPart(Strict):
    type: Literal["text"]
    text: Annotated[StrictStr, Field(max_length=MAX_CHARACTERS)]


class CalledFunction(Strict):
    name: Annotated[StrictStr, Field(max_length=128)]
    arguments: Annotated[StrictStr, Field(max_length=MAX_CHARACTERS)]


class ToolCall(Strict):
    id: Annotated[StrictStr, Field(max_length=128)]
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Strict):
    """One turn. Only text: models of this service read nothing else."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        Annotated[StrictStr, Field(max_length=MAX_CHARACTERS)]
        | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]
        | None
    ) = None
    name: Annotated[StrictStr, Field(max_length=128)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Annotated[StrictStr, Field(max_length=128)] | None = None
    refusal: Annotated[StrictStr, Field(max_length=MAX_CHARACTERS)] | None = None
    annotations: Annotated[list[Any], Field(max_length=MAX_MESSAGES)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("the message has no content")
        return self

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())

    def turn(self) -> Mapping[str, Any]:
        """As chat templates know it: they have no `developer`, and no text in parts."""
        role = "system" if self.role == "developer" else self.role
        turn: dict[str, Any] = {"role": role, "content": self.text}
        if self.name is not None:
            turn["name"] = self.name
        if self.tool_calls:
            turn["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            turn["tool_call_id"] = self.tool_call_id
        return turn


class Function(Strict):
    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[StrictStr, Field(max_length=16_384)] | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    name: Annotated[StrictStr, Field(max_length=64)]


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class Schema(Strict):
    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[StrictStr, Field(max_length=16_384)] | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: StrictBool | None = None


class AsText(Strict):
    type: Literal["text"]


class AsObject(Strict):
    type: Literal["json_object"]


class AsSchema(Strict):
    type: Literal["json_schema"]
    json_schema: Schema


class ChatRequest(Sampled):
    """OpenAI's chat completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: Annotated[AsText | AsObject | AsSchema, Field(discriminator="type")] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: StrictBool | None = None
    metadata: dict[str, Any] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    reasoning_effort: Label | None = None
    safety_identifier: Label | None = None
    service_tier: Label | None = None
    store: StrictBool | None = None
    verbosity: Label | None = None

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        if sum(len(message.text) for message in self.messages) > MAX_CHARACTERS:
            raise ValueError(f"the messages have more than {MAX_CHARACTERS} characters")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if isinstance(self.tool_choice, NamedTool) and not self._chosen():
            raise ValueError("tool_choice names none of the tools")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("tool_choice needs tools")
        return self

    def _chosen(self) -> list[dict[str, Any]]:
        """The tools that may be called: with a named one, that alone."""
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        tools = self.tools or ()
        return [tool.model_dump(exclude_none=True) for tool in tools if named in (None, tool.function.name)]

    def prompts(self) -> list[Prompt]:
        """One for each answer."""
        choice = "required" if isinstance(self.tool_choice, NamedTool) else self.tool_choice
        tools = self._chosen()
        named = (self.top_logprobs or 0) if self.logprobs else None
        most = self.max_completion_tokens or self.max_tokens
        return [
            Prompt(
                reuse=self.cache_prompt,
                messages=[message.turn() for message in self.messages],
                tools=tools or None,
                tool_choice=choice if tools else None,
                json_schema=self._schema(),
                sampling=self.sampling(index, most, named),
            )
            for index in range(self.choices)
        ]

    def _schema(self) -> Mapping[str, Any] | None:
        match self.response_format:
            case AsSchema(json_schema=schema):
                return schema.schema_
            case AsObject():
                return {}
            case _:
                return None
