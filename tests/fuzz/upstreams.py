"""Readers of what other people's servers answer: chat models, trace stores, exporters of metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from ndml.cli.monitoring import samples
from ndml.errors import FieldInvalid
from ndml.internal.v1 import llm_pb2
from ndml.runtime import trace_json
from ndml.v1 import chat_pb2
from ndml.wire import error_to_status, status_to_error
from services.gateway.extraction import parse_statements
from services.llm import anthropic, openai
from services.llm.asks import end_of
from services.llm.sse import SseDecoder
from services.llm.tool_calls import ToolCallFilter
from services.llm.upstream import NO_STREAM, Reader, StreamFailed, words_of
from tests.fuzz.table import Decoder


def _stream(reader_of: Callable[[], Reader]) -> Callable[[bytes], None]:
    """As Upstream reads an answer: in chunks whose length the first byte says, to the messages that the gateway gets."""

    def read(data: bytes) -> None:
        decoder, reader = SseDecoder(), reader_of()
        step = 1 + (data[0] if data else 0)
        events = [event for at in range(1, len(data), step) for event in decoder.feed(data[at : at + step])]
        for event in [*events, *decoder.close()]:
            if event == "[DONE]":
                break
            llm_pb2.GenerateResponse(delta=reader.take(event)).SerializeToString()
        finish = reader.finish()
        if finish is not None:
            end_of(finish, "m").SerializeToString()

    return read


def _sse(*events: dict[str, Any]) -> bytes:
    return b"\x40" + b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


_FUNCTION = {"name": "f", "arguments": '{"a"'}
_OPENAI = _sse(
    {"choices": [{"delta": {"content": "hé"}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": _FUNCTION}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
)
_ANTHROPIC = _sse(
    {"type": "message_start", "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 1}}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
)

# Each of these once ended as a fault of ours.
_ODD_OPENAI = (
    _sse({"choices": [{"delta": {"content": "\ud83d"}}]}),
    _sse({"usage": {"prompt_tokens": 10**30}, "choices": [{"finish_reason": "stop"}]}),
    _sse({"usage": {"prompt_tokens": float("inf")}, "choices": []}),
    _sse({"choices": [{"delta": {"tool_calls": [{"id": [1], "function": {"name": {"a": 1}}}]}, "finish_reason": "stop"}]}),
)
_ODD_ANTHROPIC = (
    _sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "\ud83d"}}),
    _sse({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 10**30}}),
)


def _tool_calls(data: bytes) -> None:
    """What a local model writes, in pieces whose length the first byte says."""
    text, step = data[1:].decode("utf-8", "replace"), 1 + (data[0] if data else 0)
    read = ToolCallFilter(True)
    shown = "".join(read.add(text[at : at + step]) for at in range(0, len(text), step)) + read.flush()
    said = [chat_pb2.ToolCall(id=call.id, name=call.name, arguments_json=call.arguments) for call in read.calls]
    llm_pb2.GenerateResponse(delta=shown, tool_calls=said).SerializeToString()


def _error(data: bytes) -> None:
    """The status that a failed call brings, as the Python client reads it."""
    found = status_to_error(status_pb2.Status.FromString(data))
    str(found)


def _words(data: bytes) -> None:
    llm_pb2.GenerateResponse(delta=words_of(data.decode("utf-8", "replace"))).SerializeToString()


_WORDS = (b'{"error": {"message": "come back later"}}', b'{"error": "x"}', b"<html>", b"[" * 5_000, b'{"error": "\\ud800"}')
_LISTED = b'```json\n{"statements": ["I like tea."]}\n```'
_SPAN = {"traceId": "a" * 32, "spanId": "b" * 16, "startTimeUnixNano": "1", "endTimeUnixNano": 2, "status": {"code": 2}, "kind": 3}
_OTLP = {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [_SPAN]}]}]}
_JAEGER_SPAN = {"traceID": "a" * 32, "spanID": "b" * 16, "operationName": "o", "startTime": 1, "duration": 2, "processID": "p", "tags": []}
_JAEGER = {"data": [{"spans": [_JAEGER_SPAN], "processes": {"p": {"serviceName": "s", "tags": [{"key": "a", "value": 1}]}}}]}
_METRICS = b'# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.7e+09\n# TYPE x counter\nx_total{a="b"} 1\n'

DECODERS = (
    Decoder("stream-openai", _stream(openai.OpenAIDialect("max_tokens").reader), (_OPENAI, *_ODD_OPENAI), (*NO_STREAM, StreamFailed)),
    Decoder("stream-anthropic", _stream(anthropic.AnthropicDialect().reader), (_ANTHROPIC, *_ODD_ANTHROPIC), (*NO_STREAM, StreamFailed)),
    Decoder(
        "upstream-error",
        _words,
        (b'{"error": {"message": "come back later"}}', b'{"error": "x"}', b"<html>", b"[" * 5_000, b'{"error": "\\ud800"}'),
        (),
    ),
    Decoder("tool-calls", _tool_calls, (b'\7say <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> done',), ()),
    Decoder(
        "statements",
        lambda data: parse_statements(data.decode("utf-8", "replace"), 16),
        (_LISTED,),
    ),
    Decoder(
        "traces",
        lambda data: trace_json.spans_of(data.decode("utf-8", "replace")),
        (json.dumps(_OTLP).encode(), json.dumps(_JAEGER).encode()),
        (trace_json.NotTraces,),
    ),
    Decoder("metrics", lambda data: samples.parse(data.decode("utf-8", "replace"), 0.0), (_METRICS,), (samples.Unreadable,)),
    Decoder("call-error", _error, (error_to_status(FieldInvalid("wrong", field="a")).SerializeToString(),), (DecodeError,)),
)
