"""Generation on the wire <-> in the domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid
from ndml.fusion.readout import Entry, Floats, MemoryReadout
from ndml.internal.v1 import llm_pb2 as pb
from ndml.v1 import chat_pb2 as chat
from services.llm.ports import Abilities, Ask, Finish, Message, RoleName, Sampling, Tool, ToolCall, WayName

_ROLES: dict[int, RoleName] = {
    chat.ROLE_SYSTEM: "system",
    chat.ROLE_USER: "user",
    chat.ROLE_ASSISTANT: "assistant",
    chat.ROLE_TOOL: "tool",
}
_REASONS = {"stop": chat.FINISH_REASON_STOP, "length": chat.FINISH_REASON_LENGTH, "tool_calls": chat.FINISH_REASON_TOOL_CALLS}
_WAYS: dict[WayName, chat.FusionWay] = {
    "prompt": chat.FUSION_WAY_PROMPT,
    "prefix": chat.FUSION_WAY_PREFIX,
    "adapter": chat.FUSION_WAY_ADAPTER,
    "state": chat.FUSION_WAY_STATE,
    "knn": chat.FUSION_WAY_KNN,
}
_NAMES: dict[int, WayName] = {number: name for name, number in _WAYS.items()}


def ask_of(request: pb.GenerateRequest) -> Ask:
    """Raises EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid for memory that is none."""
    return Ask(
        messages=tuple(_message(m) for m in request.messages),
        sampling=_sampling(request.sampling),
        memory=_memory(request.memory),
        fusion=_NAMES.get(request.fusion),
        tools=tuple(Tool(t.name, t.description, t.parameters_json) for t in request.tools),
        tool_choice=request.tool_choice,
        model=request.model,
    )


def end_of(finish: Finish, model: str) -> pb.GenerateResponse:
    """The last message."""
    return pb.GenerateResponse(
        finish_reason=_REASONS[finish.reason],
        usage=chat.Usage(prompt_tokens=finish.prompt_tokens, completion_tokens=finish.completion_tokens),
        model=model,
        tool_calls=[chat.ToolCall(id=call.id, name=call.name, arguments_json=call.arguments) for call in finish.tool_calls],
        fusion=_WAYS[finish.fusion],
        memory_read=finish.read,
    )


def chat_info(model: str, abilities: Abilities) -> pb.GetModelInfoResponse:
    """What is to be said of the chat model."""
    ways = [pb.FusionStatus(fusion=_WAYS[way], available=not why, reason=why) for way, why in abilities.refusals.items()]
    return pb.GetModelInfoResponse(chat_model=model, fusion=ways, scores=abilities.scores, context_tokens=abilities.context_tokens)


def _message(message: chat.ChatMessage) -> Message:
    calls = tuple(ToolCall(call.id, call.name, call.arguments_json) for call in message.tool_calls)
    return Message(_ROLES[message.role], message.content, calls, message.tool_call_id)


def _sampling(options: chat.SamplingOptions) -> Sampling:
    """0 stands for the default in each field."""
    temperature, top_p = round(options.temperature, 6), round(options.top_p, 6)  # float32 turns 0.7 into 0.699999988
    return Sampling(options.max_new_tokens or None, temperature, top_p or 1.0, tuple(s for s in options.stop if s), options.seed or None)


def _memory(entries: Iterable[pb.MemoryEntry]) -> MemoryReadout:
    read = []
    for place, entry in enumerate(entries):
        with _named(lambda name, place=place: f"memory[{place}].{name}"):  # type: ignore[misc]
            read.append(_entry(entry))
    with _named(lambda _: "memory"):
        return MemoryReadout(tuple(read))


@contextmanager
def _named(field: Callable[[str], str]) -> Iterator[None]:
    """What the readout refuses, under the request's name of the field."""
    try:
        yield
    except (FieldInvalid, EmbeddingDimensionMismatch, EmbeddingNotFinite) as error:
        [violation] = error.violations
        raise type(error)(error.message, field=field(violation.field.removeprefix("readout."))) from error


def _entry(entry: pb.MemoryEntry) -> Entry:
    return Entry(
        number=entry.number,
        text=entry.text,
        speaker=entry.speaker,
        said_at=_said(entry),
        embedding=_vector(entry.embedding),
        strength=entry.strength,
        superseded=entry.superseded,
    )


def _said(entry: pb.MemoryEntry) -> datetime | None:
    if not entry.HasField("said_at"):
        return None
    try:
        return entry.said_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldInvalid(f"said_at of entry {entry.number} is no time between the years 1 and 9999", field="said_at") from error


def _vector(data: bytes) -> Floats | None:
    if not data:
        return None
    if len(data) % 4:
        raise EmbeddingDimensionMismatch(f"{len(data)} bytes are no float32 vector: send little-endian float32", field="embedding")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
