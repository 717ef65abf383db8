"""Bodies of the OpenAI routes. What is not named here is ignored, as OpenAI's own servers do; what cannot be honoured is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import TypedDict  # pydantic cannot read the standard library's before Python 3.12

from services.gateway.rest.codec import to_json
from services.gateway.rest.seed_bodies import MAX_INT32

MAX_INT64 = (1 << 63) - 1


def _absent(value: object, *neutral: object) -> bool:
    return value is None or value in neutral


def _refused(why: str, *neutral: object) -> AfterValidator:
    """Passes what asks for nothing: None and the values that mean the same."""

    def check(value: object) -> object:
        if not _absent(value, *neutral):
            raise ValueError(why)
        return value

    return AfterValidator(check)


class OpenAIBody(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, tree: Any) -> Any:
        """The clients send null for what their users left out."""
        return {key: value for key, value in tree.items() if value is not None} if isinstance(tree, dict) else tree


class Part(OpenAIBody):
    """One part of a message's content."""

    type: Literal["text", "refusal"] = Field(description="Text: this suite reads nothing else.")
    text: str = Field("", description="The text.")
    refusal: str = Field("", description="An assistant's refusal, read as text.")

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("type") not in ("text", "refusal", None):
            raise ValueError(f"parts of type {str(tree['type'])[:40]!r} are not supported: send parts of type text")
        return tree


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Content = Annotated[list[Part], BeforeValidator(_as_parts, json_schema_input_type=str | list[Part])]


class CalledFunction(OpenAIBody):
    name: str = Field(description="Name of the tool.")
    arguments: str = Field("", description="Its arguments, as JSON.")


class ToolCallBody(OpenAIBody):
    """A tool that the model asked for."""

    id: str = Field("", description="Names the call in the tool's message.")
    type: Literal["function"] = "function"
    function: CalledFunction


class MessageBody(OpenAIBody):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(description="Who speaks; developer means system.")
    content: Content = Field(default_factory=list, description="What: a string, or parts of type text.")
    tool_calls: list[ToolCallBody] = Field(default_factory=list, description="Of an assistant's message: tools that it asked for.")
    tool_call_id: str = Field("", description="Of a tool's message: the call that it answers.")

    @property
    def text(self) -> str:
        """The parts, a line each, as vLLM joins them."""
        return "\n".join(part.text or part.refusal for part in self.content)


def _writable(value: dict[str, Any]) -> dict[str, Any]:
    """What was read from JSON may still not be JSON: 1e999, half of a surrogate pair."""
    try:
        to_json(value)
    except (ValueError, RecursionError):
        raise ValueError("send JSON of finite numbers and valid Unicode, not nested too deep") from None
    return value


class FunctionBody(OpenAIBody):
    name: str = Field(min_length=1, description="Its name.")
    description: str = Field("", description="What it is for.")
    parameters: Annotated[dict[str, Any], AfterValidator(_writable)] | None = Field(None, description="JSON Schema of its arguments.")


class ToolBody(OpenAIBody):
    """A function that the model may ask the caller to run."""

    type: Literal["function"] = "function"
    function: FunctionBody


class NamedTool(TypedDict):
    name: str


class ToolChoice(TypedDict):
    """This tool and no other."""

    type: Literal["function"]
    function: NamedTool


_CHOICES = ("auto", "none", "required")


def _chosen(value: Any) -> Any:
    """The words as they are, a tool by its name."""
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if value in _CHOICES or (isinstance(name, str) and name):
        return name or value
    raise ValueError('give "auto", "none", "required", or {"type": "function", "function": {"name": …}}')


class StreamOptions(OpenAIBody):
    include_usage: bool = Field(False, description="One chunk more, before [DONE], with the token counts.")


class MetadataBody(OpenAIBody):
    """Of `metadata` the keys that mean something here, each a string; others are the application's own and ignored."""

    tenant: str = Field("", description="Tenant, where the credentials do not say it; the header ndml-tenant does the same.")
    agent: str = Field("", description="Agent of the scope.")
    session: str = Field("", description="Conversation of the scope: what is learned belongs to it. Recall is over all of them.")
    recall_k: int | None = Field(None, ge=0, le=MAX_INT32, strict=False, description="Memories to recall; 0: none. Default: 5.")
    fusion: Literal["", "auto", "prompt", "prefix", "adapter", "state", "knn"] = Field("", description="How the model reads memory.")
    learning: Literal["", "background", "wait", "off"] = Field("", description="What is learned of this turn.")
    consistency_token: str = Field("", description="From a write's response: the recall sees at least that write.")
    request_id: str = Field("", description="Makes a retry learn once; the header idempotency-key does the same.")


def _no(what: str) -> str:
    return f"{what} not supported: leave it out"


class ChatCompletionBody(OpenAIBody):
    """Body of POST /v1/chat/completions."""

    messages: list[MessageBody] = Field(min_length=1, description="The conversation; its last message asks.")
    model: str = Field("", description="One of GET /v1/models; empty or default: the one that is configured.")
    user: str = Field("", description="Whose memory. Without it the model answers without memory.")
    safety_identifier: str = Field("", description="The same as user.")
    metadata: MetadataBody = Field(default_factory=MetadataBody, description="More of the scope, and how to use memory.")
    stream: bool = Field(False, description="Answer with server-sent events.")
    stream_options: StreamOptions = Field(default_factory=StreamOptions, description="Of a stream.")
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_INT32, description="Tokens at most. Default: 256.")
    max_tokens: int | None = Field(None, ge=1, le=MAX_INT32, description="The older name of max_completion_tokens.")
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False, description="0, the default here: greedy.")
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False, description="Nucleus. Default: 1.")
    stop: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])] = Field(
        default_factory=list, description="Stop before any of these."
    )
    seed: int = Field(0, ge=-MAX_INT64, le=MAX_INT64, description="Fixes the sampling; 0: not fixed.")
    tools: list[ToolBody] = Field(default_factory=list, description="Tools that the model may ask for.")
    tool_choice: Annotated[str, BeforeValidator(_chosen, json_schema_input_type=Literal["auto", "none", "required"] | ToolChoice)] = Field(
        "auto", description="Whether it may, must, or must which."
    )
    parallel_tool_calls: bool = Field(True, description="False: the first tool call alone is given.")

    n: Annotated[Any, _refused("one answer a request: leave n out, or ask again for another", 1)] = Field(1, description="1.")
    logprobs: Annotated[Any, _refused(_no("log-probabilities are"), False)] = Field(None, description="Refused.")
    top_logprobs: Annotated[Any, _refused(_no("log-probabilities are"), 0)] = Field(None, description="Refused.")
    logit_bias: Annotated[Any, _refused(_no("logit_bias is"), {})] = Field(None, description="Refused.")
    presence_penalty: Annotated[Any, _refused(_no("penalties are"), 0)] = Field(None, description="Refused but for 0.")
    frequency_penalty: Annotated[Any, _refused(_no("penalties are"), 0)] = Field(None, description="Refused but for 0.")
    response_format: Annotated[
        Any, _refused("only text can be promised: leave response_format out, or give the model a tool", {"type": "text"})
    ] = Field(None, description="Refused but for text.")
    modalities: Annotated[Any, _refused("only text is given: leave modalities out", ["text"], [])] = Field(None, description="text.")
    audio: Annotated[Any, _refused(_no("audio is"))] = Field(None, description="Refused.")
    web_search_options: Annotated[Any, _refused(_no("web search is"))] = Field(None, description="Refused.")
    functions: Annotated[Any, _refused("functions was replaced by tools: use tools", [])] = Field(None, description="Refused.")
    function_call: Annotated[Any, _refused("function_call was replaced by tool_choice: use tool_choice", "none", "auto")] = Field(
        None, description="Refused."
    )


def _texts(value: Any) -> Any:
    """One text or several. Token ids are another model's: no server can know which words they stand for."""
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise ValueError("token ids are not supported: send text (with LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)")
    return _as_list(value)


class EmbeddingsBody(OpenAIBody):
    """Body of POST /v1/embeddings."""

    input: Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=str | list[str])] = Field(
        min_length=1, description="A text, or several."
    )
    model: str = Field("", description="An embedding model of GET /v1/models; empty or default: the one there is.")
    encoding_format: Literal["float", "base64"] = Field("float", description="Numbers, or the base64 of their little-endian float32.")
    dimensions: int | None = Field(None, ge=1, description="Refused unless it is the model's own.")
