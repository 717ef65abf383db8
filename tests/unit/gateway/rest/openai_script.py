"""A dispatcher for the tests of OpenAI's routes: it answers from a table and notes what it was asked."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from google.protobuf.message import Message

from ndml import errors
from ndml.v1 import chat_pb2, model_pb2
from services.gateway.rest import HealthReport, RestSettings, build_app

CITATION = chat_pb2.Citation(number=1, trace_id="t1", score=0.5, text="nuts", mentioned=True)
LAST = chat_pb2.ChatResponse(
    finish_reason="FINISH_REASON_STOP",
    model="tiny",
    usage=chat_pb2.Usage(prompt_tokens=40, completion_tokens=2),
    citations=[CITATION],
    answer_id="a1",
    fusion="FUSION_WAY_PROMPT",
    learned_trace_ids=["t2"],
    consistency_token="c1",
)
ANSWER = [chat_pb2.ChatResponse(delta="No "), chat_pb2.ChatResponse(delta="nuts [1]."), LAST]


class Script:
    """A dispatcher that answers from a table and notes its calls; vectors are made to the texts' lengths."""

    def __init__(self, parts: list[Any] | None = None) -> None:
        self.parts = ANSWER if parts is None else parts
        self.calls: list[tuple[str, Any, Mapping[str, str]]] = []
        self.fails: errors.NdmlError | None = None

    async def unary(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> Message:
        self.calls.append((method, request, metadata))
        if self.fails is not None:
            raise self.fails
        if isinstance(request, model_pb2.EmbedTextsRequest):
            vectors = [struct.pack("<2f", len(text), 0.5) for text in request.texts]
            return model_pb2.EmbedTextsResponse(embeddings=vectors, dimension=2, model="mini")
        chat = model_pb2.Model(id="org/tiny", purpose="MODEL_PURPOSE_CHAT", max_tokens=512)
        return model_pb2.ListModelsResponse(models=[chat, model_pb2.Model(id="mini", purpose="MODEL_PURPOSE_EMBEDDING", dimension=2)])

    async def stream(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> AsyncIterator[Message]:
        self.calls.append((method, request, metadata))
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


def client_of(script: Script, **knobs: Any) -> httpx.AsyncClient:
    app = build_app(script, RestSettings(**knobs), lambda: HealthReport(True, "ndml-gateway", "g1", "1.0", 3.5))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ndml")
