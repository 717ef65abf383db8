"""From our messages to the answers of the OpenAI routes."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.message import Message
from starlette.responses import Response

from ndml.errors import ModelUnavailable, NdmlError
from ndml.v1 import chat_pb2, model_pb2
from services.gateway.rest.codec import to_json, to_tree
from services.gateway.rest.openai_errors import error_response, error_tree
from services.gateway.rest.streaming import SSE

_FINISH: dict[int, str] = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
}
_BROKEN_OFF = "the model's answer broke off; ask again"


@dataclass(frozen=True, slots=True)
class Answering:
    """What every part of one answer repeats. `created`: Unix seconds; `model`: as asked for, until the last message names it."""

    id: str
    created: int
    model: str
    remembers: bool
    include_usage: bool
    parallel_tool_calls: bool


def completion(answering: Answering, text: str, last: chat_pb2.ChatResponse) -> dict[str, Any]:
    """A whole chat completion. Raises ModelUnavailable where `last` is not the last message of an answer."""
    calls = _tool_calls(answering, last)
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(last)}
    tree = _head(answering, "chat.completion", last.model) | {"choices": [choice], "usage": _usage(last)}
    return tree | {"ndml": memory_tree(answering, last)}


class Chunks:
    """Framing of a streamed completion: an event a message, [DONE] at the end. The chunk with finish_reason has `ndml`."""

    media = SSE

    def __init__(self, answering: Answering, traceparent: str) -> None:
        self._answering = answering
        self._traceparent = traceparent
        self._begun = False
        self._finished = False

    def message(self, message: Message) -> bytes:
        part = cast(chat_pb2.ChatResponse, message)
        events = [] if self._begun else [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        self._begun = True
        if part.delta:
            events.append(self._chunk({"content": part.delta}))
        if part.finish_reason:
            self._finished = True
            events += self._last(part)
        return b"".join(events)

    def end(self) -> bytes:
        if self._finished:
            return b"data: [DONE]\n\n"
        failure = ModelUnavailable(_BROKEN_OFF)
        return self.failed(failure)

    def failed(self, failure: NdmlError) -> bytes:
        return _event(error_tree(failure, self._traceparent))

    def refusal(self, failure: NdmlError) -> Response:
        return error_response(failure, self._traceparent)

    def _last(self, part: chat_pb2.ChatResponse) -> Iterable[bytes]:
        answering = self._answering
        calls = _tool_calls(answering, part)
        if calls:
            yield self._chunk({"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]})
        yield self._chunk({}, _finish(part), part.model, {"ndml": memory_tree(answering, part)})
        if answering.include_usage:
            yield _event(_head(answering, "chat.completion.chunk", part.model) | {"choices": [], "usage": _usage(part)})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, model: str = "", more: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage: dict[str, Any] = {"usage": None} if self._answering.include_usage else {}
        return _event(_head(self._answering, "chat.completion.chunk", model) | {"choices": [choice]} | usage | (more or {}))


def memory_tree(answering: Answering, last: chat_pb2.ChatResponse) -> dict[str, Any]:
    """What memory had to do with an answer: the `ndml` object beside the choices."""
    citations = to_tree(last)["citations"]
    return {
        "memory": answering.remembers,
        "fusion": chat_pb2.FusionWay.Name(last.fusion).removeprefix("FUSION_WAY_").lower() if last.fusion else "",
        "answer_id": last.answer_id,
        "citations": citations,
        "recall_partial": last.recall_stats.partial,
        "learned_trace_ids": list(last.learned_trace_ids),
        "consistency_token": last.consistency_token,
    }


def model_tree(model: model_pb2.Model, alias: str = "") -> dict[str, Any]:
    """One model, under another name where it has one. When it was made is not known, and the clients' types want a number."""
    purpose = model_pb2.ModelPurpose.Name(model.purpose).removeprefix("MODEL_PURPOSE_").lower()
    about: dict[str, Any] = {"purpose": purpose, "dimension": model.dimension, "max_tokens": model.max_tokens}
    about["stands_for"] = model.id if alias else ""
    return {"id": alias or model.id, "object": "model", "created": 0, "owned_by": "ndml", "ndml": about}


def embeddings_tree(vectors: Iterable[bytes], model: str, as_base64: bool) -> dict[str, Any]:
    """Vectors, float32 little-endian, as a list of embeddings. Tokens are not counted on this path: usage says 0."""
    rows = [
        {"object": "embedding", "index": index, "embedding": base64.b64encode(vector).decode() if as_base64 else _floats(vector)}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": rows, "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}


def _floats(vector: bytes) -> list[float]:
    values = array("f")
    values.frombytes(vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _head(answering: Answering, kind: str, model: str) -> dict[str, Any]:
    return {"id": answering.id, "object": kind, "created": answering.created, "model": model or answering.model}


def _finish(last: chat_pb2.ChatResponse) -> str:
    if last.finish_reason not in _FINISH:
        raise ModelUnavailable(_BROKEN_OFF)
    return _FINISH[last.finish_reason]


def _tool_calls(answering: Answering, last: chat_pb2.ChatResponse) -> list[dict[str, Any]]:
    wanted = last.tool_calls if answering.parallel_tool_calls else last.tool_calls[:1]
    return [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}} for call in wanted]


def _usage(last: chat_pb2.ChatResponse) -> dict[str, int]:
    prompt, answer = last.usage.prompt_tokens, last.usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _event(tree: dict[str, Any]) -> bytes:
    return b"data: " + to_json(tree) + b"\n\n"
