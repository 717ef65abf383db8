"""From the bodies of the OpenAI routes to our messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from ndml.errors import FieldInvalid
from ndml.runtime.auth import TENANT_KEY
from ndml.v1 import chat_pb2, types_pb2
from services.gateway.rest.codec import to_json
from services.gateway.rest.openai_bodies import ChatCompletionBody, MessageBody, MetadataBody, ToolBody

USER_HEADERS = ("ndml-user", "x-ndml-user")
REQUEST_ID_HEADER = "idempotency-key"
ANY_MODEL = "*"

# Top-p of an explicit 0, which our contract reads as "not given": the one most likely token.
_SMALLEST_NUCLEUS = 1e-6

_ROLES: dict[str, chat_pb2.Role] = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat as our service takes it. `metadata` of the call; `remembers`: a user is given, so memory takes part."""

    request: chat_pb2.ChatRequest
    metadata: Mapping[str, str]
    remembers: bool


def asked(body: ChatCompletionBody, headers: Headers, metadata: Mapping[str, str], aliases: Mapping[str, str]) -> Asked:
    """The call that `body` means. Raises FieldInvalid."""
    user = user_of(body, headers)
    wishes = body.metadata
    request_ids = {"metadata.request_id": wishes.request_id, REQUEST_ID_HEADER: _header(headers, REQUEST_ID_HEADER)}
    request = chat_pb2.ChatRequest(
        scope=types_pb2.Scope(user=user, agent=wishes.agent, session=wishes.session),
        messages=[_message(message) for message in body.messages],
        sampling=_sampling(body),
        recall_k=wishes.recall_k,
        fusion=_fusion(wishes.fusion),
        learning=_learning(wishes.learning),
        tools=[_tool(tool) for tool in body.tools],
        tool_choice=body.tool_choice,
        model=model_of(body.model, aliases),
        consistency_token=wishes.consistency_token,
        request_id=_one_of("metadata.request_id", request_ids),
    )
    if not user:
        _without_memory(request)
    return Asked(request, _with_tenant(metadata, wishes), bool(user))


def user_of(body: ChatCompletionBody, headers: Headers) -> str:
    """Whose memory; empty: nobody's. Raises FieldInvalid where two users are named: to guess would show one the other's memory."""
    given = {"user": body.user, "safety_identifier": body.safety_identifier}
    return _one_of("user", given | {name: _header(headers, name) for name in USER_HEADERS})


def model_of(name: str, aliases: Mapping[str, str]) -> str:
    """The model that a request means; empty: the one that is configured."""
    return aliases.get(name, aliases.get(ANY_MODEL, name)) if name else ""


def _header(headers: Headers, name: str) -> str:
    """The header as UTF-8: HTTP's own reading is Latin-1, and the same name must mean the same user there as in a body."""
    try:
        return headers.get(name, "").encode("latin-1").decode()
    except UnicodeDecodeError:
        raise FieldInvalid(f"the header {name} is not UTF-8", field=name) from None


def _one_of(field: str, given: Mapping[str, str]) -> str:
    found = {value: name for name, value in given.items() if value}
    if len(found) > 1:
        raise FieldInvalid(f"{' and '.join(found.values())} differ: give one of them", field=field)
    return next(iter(found), "")


def _without_memory(request: chat_pb2.ChatRequest) -> None:
    """Nothing is read and nothing is learned: a memory that all nameless callers share would tell each of the others."""
    request.recall_k = 0
    request.learning = chat_pb2.LEARNING_OFF
    request.ClearField("consistency_token")


def _with_tenant(metadata: Mapping[str, str], wishes: MetadataBody) -> dict[str, str]:
    tenant = _one_of("metadata.tenant", {"metadata.tenant": wishes.tenant, TENANT_KEY: metadata.get(TENANT_KEY, "")})
    return {**metadata, TENANT_KEY: tenant} if tenant else dict(metadata)


def _message(message: MessageBody) -> chat_pb2.ChatMessage:
    calls = [chat_pb2.ToolCall(id=call.id, name=call.function.name, arguments_json=call.function.arguments) for call in message.tool_calls]
    # Tools that give nothing and blank system messages are everyday; our contract wants content. An empty question stays one.
    blank = "" if calls or message.role == "user" else " "
    return chat_pb2.ChatMessage(
        role=_ROLES[message.role], content=message.text or blank, tool_calls=calls, tool_call_id=message.tool_call_id
    )


def _tool(tool: ToolBody) -> chat_pb2.Tool:
    function = tool.function
    parameters = "" if function.parameters is None else to_json(function.parameters).decode()
    return chat_pb2.Tool(name=function.name, description=function.description, parameters_json=parameters)


def _sampling(body: ChatCompletionBody) -> chat_pb2.SamplingOptions:
    return chat_pb2.SamplingOptions(
        max_new_tokens=body.max_completion_tokens or body.max_tokens or 0,
        temperature=body.temperature,
        top_p=0.0 if body.top_p is None else max(body.top_p, _SMALLEST_NUCLEUS),
        stop=body.stop,
        seed=body.seed,
    )


def _fusion(name: str) -> str:
    return "FUSION_WAY_UNSPECIFIED" if name in ("", "auto") else f"FUSION_WAY_{name.upper()}"


def _learning(name: str) -> str:
    return f"LEARNING_{(name or 'unspecified').upper()}"
