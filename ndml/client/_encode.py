"""Models to protobuf. Pure; what cannot be sent is refused here with the field's name, limits are the server's to hold."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from ndml.client._contents import Content, Embedding
from ndml.client._dynamics import CreditSpread, Feedback, Link, RankingWeights
from ndml.client._models import (
    ChatMessage,
    Filter,
    Memory,
    NewMemory,
    Provenance,
    Range,
    Sampling,
    Scope,
    Tool,
    ToolCall,
)
from ndml.errors import FieldInvalid
from ndml.v1 import chat_pb2, memory_pb2, types_pb2

_KINDS = {
    "": types_pb2.TRACE_KIND_UNSPECIFIED,
    "episodic": types_pb2.TRACE_KIND_EPISODIC,
    "semantic": types_pb2.TRACE_KIND_SEMANTIC,
    "procedural": types_pb2.TRACE_KIND_PROCEDURAL,
}
_CLOCKS = {
    "": memory_pb2.CREDIT_CLOCK_UNSPECIFIED,
    "turns": memory_pb2.CREDIT_CLOCK_TURNS,
    "seconds": memory_pb2.CREDIT_CLOCK_SECONDS,
    "none": memory_pb2.CREDIT_CLOCK_NONE,
}
_MODES = {
    "": types_pb2.SEARCH_MODE_UNSPECIFIED,
    "full": types_pb2.SEARCH_MODE_FULL,
    "fast": types_pb2.SEARCH_MODE_FAST,
    "dense": types_pb2.SEARCH_MODE_DENSE,
}
_PROFILES = {
    "": types_pb2.NODE_PROFILE_UNSPECIFIED,
    "general": types_pb2.NODE_PROFILE_GENERAL,
    "code": types_pb2.NODE_PROFILE_CODE,
    "factual": types_pb2.NODE_PROFILE_FACTUAL,
    "conversational": types_pb2.NODE_PROFILE_CONVERSATIONAL,
}
_CONSISTENCIES = {
    "": types_pb2.CONSISTENCY_UNSPECIFIED,
    "one": types_pb2.CONSISTENCY_ONE,
    "quorum": types_pb2.CONSISTENCY_QUORUM,
    "all": types_pb2.CONSISTENCY_ALL,
}
_TRACE_ID_LENGTH = 32
_LONGEST_S = 315_576_000_000  # 10,000 years, as google.protobuf.Duration says
_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}
_FUSIONS = {
    "": chat_pb2.FUSION_WAY_UNSPECIFIED,
    "prompt": chat_pb2.FUSION_WAY_PROMPT,
    "prefix": chat_pb2.FUSION_WAY_PREFIX,
    "adapter": chat_pb2.FUSION_WAY_ADAPTER,
    "state": chat_pb2.FUSION_WAY_STATE,
    "knn": chat_pb2.FUSION_WAY_KNN,
}
_LEARNINGS = {
    "": chat_pb2.LEARNING_UNSPECIFIED,
    "background": chat_pb2.LEARNING_BACKGROUND,
    "wait": chat_pb2.LEARNING_WAIT,
    "off": chat_pb2.LEARNING_OFF,
}


def text(field: str, value: object) -> str:
    """A string that UTF-8 can carry."""
    if not isinstance(value, str):
        raise FieldInvalid(f"{field} must be a string, got {type(value).__name__}", field=field)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldInvalid(f"{field} holds a lone surrogate at {error.start}: decode its source as UTF-8", field=field) from None
    return value


def number(field: str, value: object) -> float:
    """A finite or not finite number; the server judges its range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldInvalid(f"{field} must be a number, got {type(value).__name__}", field=field)
    return float(value)


def integer(field: str, value: object, *, bits: int = 32, signed: bool = True) -> int:
    """An integer that the wire type can hold; the server judges its range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldInvalid(f"{field} must be an integer, got {type(value).__name__}", field=field)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise FieldInvalid(f"{field} must be between {low} and {high}, got {value}", field=field)
    return value


def timestamp(field: str, value: datetime | None) -> timestamp_pb2.Timestamp | None:
    """An aware datetime as Timestamp; a naive one is refused, it could mean any hour."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise FieldInvalid(f"{field} must be a datetime with a time zone, for example datetime.now(timezone.utc)", field=field)
    result = timestamp_pb2.Timestamp()
    try:
        result.FromDatetime(value)
    except (ValueError, OverflowError) as error:
        raise FieldInvalid(f"{field} is outside the years 1 to 9999: {error}", field=field) from None
    return result


def kind(field: str, value: str) -> types_pb2.TraceKind:
    if value not in _KINDS:
        raise FieldInvalid(f"{field} must be one of {', '.join(filter(None, _KINDS))}; got {value!r}", field=field)
    return _KINDS[value]


def consistency(value: str) -> types_pb2.Consistency:
    if text("consistency", value) not in _CONSISTENCIES:
        raise FieldInvalid(f"consistency must be one of {', '.join(filter(None, _CONSISTENCIES))}; got {value!r}", field="consistency")
    return _CONSISTENCIES[value]


def vector(field: str, value: object) -> bytes:
    """Little-endian float32 bytes of a list of numbers, a NumPy array, a tensor or a buffer of floats; bytes are taken as they are."""
    if isinstance(value, bytes | bytearray) or (isinstance(value, memoryview) and value.format in "Bc"):
        return bytes(value)
    if hasattr(value, "astype") and hasattr(value, "tobytes"):
        if getattr(value, "ndim", 1) != 1:
            raise FieldInvalid(f"{field} must be one vector, got shape {getattr(value, 'shape', '?')}: give its row", field=field)
        return bytes(value.astype("<f4").tobytes())
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise FieldInvalid(f"{field} must be a vector of numbers, got {type(value).__name__}", field=field)
    try:
        floats = array("f", value)
    except (TypeError, OverflowError) as error:
        raise FieldInvalid(f"{field} must be one vector of numbers that float32 can hold: {error}", field=field) from None
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def embedding(field: str, value: object) -> types_pb2.Embedding | None:
    if value is None:
        return None
    if isinstance(value, Embedding):
        words = value.word_vectors
        if not isinstance(words, bytes):
            raise FieldInvalid(f"{field}.word_vectors must be bytes, got {type(words).__name__}", field=f"{field}.word_vectors")
        return types_pb2.Embedding(vector=value.vector, model=text(f"{field}.model", value.model), word_vectors=words)
    return types_pb2.Embedding(vector=vector(f"{field}.vector", value))


def scope(value: Scope) -> types_pb2.Scope:
    return types_pb2.Scope(
        tenant=text("scope.tenant", value.tenant),
        user=text("scope.user", value.user),
        agent=text("scope.agent", value.agent),
        session=text("scope.session", value.session),
    )


def labels(field: str, value: Mapping[str, str]) -> dict[str, str]:
    """Metadata with string keys and values; numbers are refused, since how to write them is the caller's choice."""
    return {text(f"{field} key", key): text(f"{field}[{key}]", item) for key, item in value.items()}


def provenance(value: Provenance | None) -> types_pb2.Provenance | None:
    if value is None:
        return None
    return types_pb2.Provenance(source=text("provenance.source", value.source), trust=number("provenance.trust", value.trust))


def new_memory(value: NewMemory, default: Scope) -> memory_pb2.NewMemory:
    """A memory to write; what its scope leaves open comes from `default`."""
    owner = Scope(value.user or default.user, value.agent or default.agent, value.session or default.session, default.tenant)
    return memory_pb2.NewMemory(
        scope=scope(owner),
        text=text("memory.text", value.text),
        speaker=text("memory.speaker", value.speaker),
        said_at=timestamp("memory.said_at", value.said_at),
        kind=kind("memory.kind", value.kind),
        metadata=labels("memory.metadata", value.metadata),
        salience=number("memory.salience", value.salience),
        provenance=provenance(value.provenance),
        embedding=embedding("memory.embedding", value.embedding),
        protected=value.protected,
        expires_at=timestamp("memory.expires_at", value.expires_at),
        ttl=duration("memory.ttl", value.ttl_s),
        valid_from=timestamp("memory.valid_from", value.valid_from),
        valid_until=timestamp("memory.valid_until", value.valid_until),
        links=[link(each) for each in value.links],
        contents=[content("memory.contents", each) for each in value.contents],
    )


def trace(value: Memory, owner: Scope) -> types_pb2.MemoryTrace:
    """A stored memory, of `owner`; its own scope is not looked at, nor is what the server alone may say of it."""
    return types_pb2.MemoryTrace(
        trace_id=text("trace_id", value.trace_id),
        scope=scope(owner),
        kind=kind("kind", value.kind),
        text=text("text", value.text),
        speaker=text("speaker", value.speaker),
        said_at=timestamp("said_at", value.said_at),
        learned_at=timestamp("learned_at", value.learned_at),
        updated_at=timestamp("updated_at", value.updated_at),
        metadata=labels("metadata", value.metadata),
        salience=number("salience", value.salience),
        provenance=provenance(value.provenance),
        version=integer("version", value.version, bits=64, signed=False),
        embedding=embedding("embedding", value.embedding),
        protected=value.protected,
        expires_at=timestamp("expires_at", value.expires_at),
        links=[link(each) for each in value.links],
        contents=[content("contents", each) for each in value.contents],
        valid_from=timestamp("valid_from", value.valid_from),
        valid_until=timestamp("valid_until", value.valid_until),
    )


def content(field: str, value: Content) -> types_pb2.Content:
    if not isinstance(value, Content) or not isinstance(value.data, bytes):
        raise FieldInvalid(f"{field} must hold Content with data in bytes", field=field)
    return types_pb2.Content(
        media_type=text(f"{field}.media_type", value.media_type),
        data=value.data,
        uri=text(f"{field}.uri", value.uri),
        text=text(f"{field}.text", value.text),
        embeddings=[made for each in value.embeddings if (made := embedding(f"{field}.embeddings", each)) is not None],
    )


def link(value: Link) -> types_pb2.TraceLink:
    trace_id, weight = text("links.trace_id", value.trace_id), number("links.weight", value.weight)
    evidence = text("links.evidence", value.evidence)
    return types_pb2.TraceLink(type=f"LINK_TYPE_{value.type.upper()}", trace_id=trace_id, weight=weight, evidence=evidence)


def weights(value: RankingWeights | None) -> types_pb2.RankingWeights | None:
    if value is None:
        return None
    given = {each.name: optional(f"weights.{each.name}", getattr(value, each.name)) for each in fields(value)}
    return types_pb2.RankingWeights(**given)


def mode(value: str) -> types_pb2.SearchMode:
    """Empty: the suite's setting."""
    if text("mode", value) not in _MODES:
        raise FieldInvalid(f"mode must be one of {', '.join(filter(None, _MODES))}; got {value!r}", field="mode")
    return _MODES[value]


def node_profile(value: str) -> types_pb2.NodeProfile:
    """Empty: what the query looks like."""
    if text("node_profile", value) not in _PROFILES:
        raise FieldInvalid(f"node_profile must be one of {', '.join(filter(None, _PROFILES))}; got {value!r}", field="node_profile")
    return _PROFILES[value]


def optional(field: str, value: float | None) -> float | None:
    return None if value is None else number(field, value)


def feedback(value: Feedback) -> memory_pb2.Feedback:
    """A grade on a trace or, by the length of the target, on an answer: no answer id is as long as a trace id."""
    if not isinstance(value, Feedback):
        raise FieldInvalid(f"feedback must be a Feedback, got {type(value).__name__}", field="feedback")
    target, grade = text("feedback.target", value.target), number("feedback.grade", value.grade)
    if not target:
        raise FieldInvalid("feedback.target is empty: an answer that cited nothing has no answer id", field="feedback.target")
    if len(target) == _TRACE_ID_LENGTH:
        return memory_pb2.Feedback(trace_id=target, grade=grade)
    return memory_pb2.Feedback(answer_id=target, grade=grade)


def credit_spread(value: CreditSpread | None) -> memory_pb2.CreditSpread | None:
    if value is None:
        return None
    if text("spread.clock", value.clock) not in _CLOCKS:
        raise FieldInvalid(f"spread.clock must be one of turns, seconds, none; got {value.clock!r}", field="spread.clock")
    return memory_pb2.CreditSpread(
        clock=_CLOCKS[value.clock],
        tau_before=optional("spread.tau_before", value.tau_before),
        tau_after=optional("spread.tau_after", value.tau_after),
    )


def duration(field: str, seconds: float | None) -> duration_pb2.Duration | None:
    """Seconds as Duration. Raises FieldInvalid for what a Duration cannot hold."""
    if seconds is None:
        return None
    value = number(field, seconds)
    if not abs(value) <= _LONGEST_S:
        raise FieldInvalid(f"{field} must be a number of seconds, got {value}", field=field)
    result = duration_pb2.Duration()
    result.FromMicroseconds(round(value * 1e6))
    return result


def condition(key: str, value: str | bool | Range | Sequence[str]) -> types_pb2.MetadataCondition:
    name = text("filter.metadata key", key)
    if isinstance(value, bool):
        return types_pb2.MetadataCondition(key=name, exists=value)
    if isinstance(value, str):
        return types_pb2.MetadataCondition(key=name, equals=text(f"filter.metadata[{key}]", value))
    if isinstance(value, Range):
        return types_pb2.MetadataCondition(key=name, range=types_pb2.NumberRange(at_least=value.at_least, less_than=value.less_than))
    if isinstance(value, Sequence | set | frozenset):
        values = sorted(value) if isinstance(value, set | frozenset) else value
        return types_pb2.MetadataCondition(
            key=name, any_of=types_pb2.AnyOf(values=[text(f"filter.metadata[{key}]", item) for item in values])
        )
    raise FieldInvalid(f"filter.metadata[{key}] must be a string, a list of strings, a bool or a Range", field="filter.metadata")


def filter_(value: Filter | None) -> types_pb2.Filter | None:
    if value is None:
        return None
    return types_pb2.Filter(
        metadata=[condition(key, item) for key, item in value.metadata.items()],
        said_at=time_range("filter.said_at", value.said_from, value.said_until),
        learned_at=time_range("filter.learned_at", value.learned_from, value.learned_until),
        kinds=[kind("filter.kinds", item) for item in value.kinds],
        speakers=[text("filter.speakers", item) for item in value.speakers],
        valid_at=timestamp("filter.valid_at", value.valid_at),
    )


def time_range(field: str, start: datetime | None, end: datetime | None) -> types_pb2.TimeRange | None:
    if start is None and end is None:
        return None
    ends: dict[str, Any] = {"from": timestamp(f"{field}.from", start), "until": timestamp(f"{field}.until", end)}
    return types_pb2.TimeRange(**ends)


def chat_message(value: ChatMessage) -> chat_pb2.ChatMessage:
    if value.role not in _ROLES:
        raise FieldInvalid(f"role must be one of {', '.join(_ROLES)}; got {value.role!r}", field="messages.role")
    return chat_pb2.ChatMessage(
        role=_ROLES[value.role],
        content=text("messages.content", value.content),
        tool_calls=[tool_call(each) for each in value.tool_calls],
        tool_call_id=text("messages.tool_call_id", value.tool_call_id),
    )


def tool_call(value: ToolCall) -> chat_pb2.ToolCall:
    return chat_pb2.ToolCall(
        id=text("tool_calls.id", value.id),
        name=text("tool_calls.name", value.name),
        arguments_json=text("tool_calls.arguments", value.arguments),
    )


def tool(value: Tool) -> chat_pb2.Tool:
    return chat_pb2.Tool(
        name=text("tools.name", value.name),
        description=text("tools.description", value.description),
        parameters_json=text("tools.parameters", value.parameters),
    )


def fusion(value: str) -> chat_pb2.FusionWay:
    if text("fusion", value) not in _FUSIONS:
        raise FieldInvalid(f"fusion must be one of {', '.join(filter(None, _FUSIONS))}; got {value!r}", field="fusion")
    return _FUSIONS[value]


def learning(value: str) -> chat_pb2.Learning:
    if text("learning", value) not in _LEARNINGS:
        raise FieldInvalid(f"learning must be one of {', '.join(filter(None, _LEARNINGS))}; got {value!r}", field="learning")
    return _LEARNINGS[value]


def sampling(value: Sampling | None) -> chat_pb2.SamplingOptions | None:
    if value is None:
        return None
    return chat_pb2.SamplingOptions(
        max_new_tokens=integer("sampling.max_new_tokens", value.max_new_tokens),
        temperature=number("sampling.temperature", value.temperature),
        top_p=number("sampling.top_p", value.top_p),
        stop=[text("sampling.stop", item) for item in value.stop],
        seed=integer("sampling.seed", value.seed, bits=64),
    )
