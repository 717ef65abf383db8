"""Readers of what callers send: gRPC messages, REST bodies and queries, tokens, headers, and text that rules read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.datastructures import Headers

from ndml.internal.v1 import consensus_pb2, llm_pb2, memory_node_pb2, replication_pb2
from ndml.language import statement, told
from ndml.language.terms import terms
from ndml.runtime.interceptors import parse
from ndml.runtime.telemetry import format_traceparent, parse_baggage, parse_traceparent
from ndml.runtime.validation import ProtoValidator
from ndml.seen import write_seen
from ndml.v1 import chat_pb2
from services.gateway.answers import read_answer_id, write_answer_id
from services.gateway.rest import seed
from services.gateway.rest.app import PUBLIC_SERVICES
from services.gateway.rest.codec import is_map, to_json, to_tree
from services.gateway.rest.openai_bodies import ChatCompletionBody, EmbeddingsBody
from services.gateway.rest.openai_requests import asked
from services.gateway.rest.seed_bodies import ChatBody, ConsolidateBody, QueryBody, UpdateBody
from services.gateway.rest.transcoder import Binding, bindings, request_of
from services.gateway.rest.validation import validated
from services.gateway.scopes import Owner
from services.gateway.tokens import read_consistency_token, read_page_token, write_page_token
from services.llm.asks import ask_of
from tests.fuzz.table import Decoder

_TRACE = "0197f2c4a1b27c3d8e9f00112233aabb"
_MODULES = (memory_node_pb2, replication_pb2, consensus_pb2, llm_pb2)
_SCOPE = {"user": "ann"}
_DAY = date(2026, 5, 1)
_SAID = b"My sister Ann moved to Rome in May 2024. She said 'no nuts', didn't she? I don't like U.S. coffee."


@cache
def _methods() -> tuple[MethodDescriptor, ...]:
    inner = [service for module in _MODULES for service in module.DESCRIPTOR.services_by_name.values()]
    return tuple(method for service in (*PUBLIC_SERVICES, *inner) for method in service.methods)


@cache
def _validator() -> ProtoValidator:
    return ProtoValidator()


@cache
def _bound() -> tuple[Binding, ...]:
    return tuple(bindings(PUBLIC_SERVICES))


def _message(data: bytes) -> None:
    """The first byte says of which method: bytes to a message, its rules, and the message as REST would show it."""
    methods = _methods()
    message = parse(GetMessageClass(methods[data[0] % len(methods)].input_type if data else methods[0].input_type), data[1:])
    _validator()(message)
    to_json(to_tree(message))


def _message_samples() -> Iterator[bytes]:
    for place, method in enumerate(_methods()):
        message = _filled(GetMessageClass(method.input_type)())
        yield bytes([place]) + message.SerializeToString()


def _filled(message: Message) -> Message:
    """With an empty message in every field that takes one."""
    for one in message.DESCRIPTOR.fields:
        if one.message_type is not None and one.containing_oneof is None and not is_map(one):
            inner = getattr(message, one.name)
            inner.add() if one.is_repeated else inner.SetInParent()
    return message


def _body(data: bytes) -> None:
    """The first byte says to which route; path variables are a trace's id, and what stands before a line's end is the query string."""
    bound = _bound()
    binding = bound[data[0] % len(bound)] if data else bound[0]
    query, _, body = data[1:].partition(b"\n")
    message = request_of(binding, {f"v{place}": _TRACE for place in range(len(binding.variables))}, query, body, 256)
    _validator()(message)


def _body_samples() -> Iterator[bytes]:
    memory = {"scope": _SCOPE, "text": "hi", "metadata": {"a": "b"}, "salience": 0.5, "said_at": "2026-01-31T12:00:00Z"}
    search = {"scope": _SCOPE, "text": "q", "k": 3, "filter": {"kinds": ["TRACE_KIND_EPISODIC"], "metadata": [{"key": "a", "equals": "b"}]}}
    bodies: dict[str, Any] = {
        "AddMemory": {"memory": memory, "requestId": "r"},
        "SearchMemories": search,
        "BatchSearchMemories": {"searches": [search]},
        "UpdateMemory": {"trace": {"text": "x", "siblings": [{"trace": {"text": "y"}}]}, "update_mask": "text,saidAt"},
        "ReinforceMemories": {"scope": _SCOPE, "feedback": [{"trace_id": _TRACE, "grade": 1}]},
    }
    for place, binding in enumerate(_bound()):
        body = json.dumps(bodies.get(binding.method.name, {"scope": _SCOPE})).encode() if binding.body else b""
        yield bytes([place]) + (b"scope.user=ann&page_size=3" if not binding.body else b"") + b"\n" + body


_SEED = (ChatBody, QueryBody, UpdateBody, ConsolidateBody)
_SEED_SAMPLES: tuple[dict[str, Any], ...] = (
    {"user_id": "ann", "message": "hi", "recall_k": 3},
    {"user_id": "ann", "query": "q", "k": 3},
    {"user_id": "ann", "content": "c", "said_at": "2026-01-31T12:00:00Z", "metadata": {"a": "b"}},
    {"user_id": "ann", "time_budget_s": 1.5},
    {"user_id": "ann", "messages": [{"role": "user", "content": "hi"}]},
    {"user_id": "ann"},
    {"user_id": "ann", "feedback": [{"trace_id": _TRACE, "grade": 0.5}, {"answer_id": "a", "grade": -1}]},
)


def _seed(data: bytes) -> None:
    """The first byte says to which of the short routes; bodies become messages."""
    body = validated(_SEED[data[0] % len(_SEED)] if data else ChatBody, data[1:])
    if isinstance(body, ChatBody):
        seed._chat_request(body)
    elif isinstance(body, UpdateBody):
        seed._add_request(body)
        for item in body.feedback:
            item.message()
    else:
        body.scope() if isinstance(body, QueryBody) else body.message()


def _openai(data: bytes) -> None:
    """The first byte says whether to chat or to embed."""
    if data and data[0] % 2:
        validated(EmbeddingsBody, data[1:])
        return
    call = asked(validated(ChatCompletionBody, data[1:]), Headers({"ndml-user": "ann"}), {}, {"default": ""})
    _validator()(call.request)


_CHAT = {
    "model": "default",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ],
    "metadata": {"session": "s", "recall_k": "3", "fusion": "prompt", "learning": "off"},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "stop": ["x"],
    "top_p": 0.5,
    "seed": 7,
}


def _read_text(data: bytes) -> None:
    """What rules find in what a user says."""
    text = data.decode("utf-8", "replace")
    for found in told(text, _DAY).statements:
        statement(found.text, _DAY)
    terms(text)


def _generate(data: bytes) -> None:
    request: Any = parse(llm_pb2.GenerateRequest, data)
    _validator()(request)
    ask_of(request)


def _generate_sample() -> bytes:
    said = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="hi")
    request = llm_pb2.GenerateRequest(messages=[said], memory=[llm_pb2.MemoryEntry(number=1, text="t", embedding=bytes(8))])
    request.memory[0].said_at.seconds = 1_700_000_000
    return request.SerializeToString()


_PAGE = write_page_token("q", memory_node_pb2.ListPlace(learned_us=7, trace_id=bytes(16)))
_TOKEN = write_seen({(b"abcd", 7): 9, (b"abcd", 8): 1})

DECODERS = (
    Decoder("message", _message, tuple(_message_samples())),
    Decoder("rest-body", _body, tuple(_body_samples())),
    Decoder("rest-short", _seed, tuple(bytes([place]) + json.dumps(body).encode() for place, body in enumerate(_SEED_SAMPLES))),
    Decoder("rest-openai", _openai, (b"\0" + json.dumps(_CHAT).encode(), b'\1{"input": ["a", "b"], "dimensions": 3}')),
    Decoder("generate", _generate, (_generate_sample(),)),
    Decoder("consistency-token", lambda data: read_consistency_token(data.decode("utf-8", "replace"), Owner("t", "u")), (_TOKEN.encode(),)),
    Decoder("page-token", lambda data: read_page_token(data.decode("utf-8", "replace"), "q"), (_PAGE.encode(),)),
    Decoder("answer-id", lambda data: read_answer_id(data.decode("utf-8", "replace"), "answer_id"), (write_answer_id([_TRACE]).encode(),)),
    Decoder("traceparent", lambda data: _trace(data.decode("latin-1")), (b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",)),
    Decoder("baggage", lambda data: parse_baggage(data.decode("latin-1")), (b"ndml.tenant.hash=0123456789abcdef;p=1,other=2",)),
    Decoder("language", _read_text, (_SAID,)),
)


def _trace(value: str) -> None:
    found = parse_traceparent(value)
    if found is not None:
        format_traceparent(found)
