"""Talking: recall what the scope knows, let the model read it, stream its answer, cite what it read, learn what was said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

from ndml.errors import Aborted, DeadlineExceeded, Internal, ModelUnavailable, ResourceExhausted, Unavailable
from ndml.internal.v1 import llm_pb2
from ndml.language import asks_about_the_past
from ndml.runtime import metrics, semconv
from ndml.runtime.call import Call
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import span
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from services.gateway.learning import Learned, Learning
from services.gateway.ports import ChatModel
from services.gateway.readout import Chosen, Mentions, choose, citations, entries
from services.gateway.recall import Recall
from services.gateway.scopes import Owner, owner_of
from services.gateway.settings import ChatSettings
from services.gateway.tokens import joined, read_consistency_token, write_consistency_token

log = get_logger(__name__)

_PASSING = (Unavailable, ResourceExhausted, Aborted, DeadlineExceeded, Internal)
"""What keeps memory away for a while and is no fault of the request: the answer comes without it, and says so."""
_BY_VECTOR = (chat_pb2.FUSION_WAY_UNSPECIFIED, chat_pb2.FUSION_WAY_PREFIX, chat_pb2.FUSION_WAY_ADAPTER)
"""Ways of reading that look at vectors; unspecified may turn out to be one of them."""

_found, _nothing, _failed = (metrics.CHAT_RECALLS.labels(outcome) for outcome in ("found", "nothing", "failed"))


class _Recalled(NamedTuple):
    """What the model is to read, how recall went, and what a read that comes after must have seen."""

    chosen: Sequence[Chosen] = ()
    stats: types_pb2.SearchStats | None = None
    token: str = ""


class Chat:
    """Answers with memory."""

    def __init__(self, recall: Recall, model: ChatModel, learning: Learning, settings: ChatSettings) -> None:
        self._recall = recall
        self._model = model
        self._learning = learning
        self._settings = settings

    async def chat(self, request: chat_pb2.ChatRequest, call: Call) -> AsyncGenerator[chat_pb2.ChatResponse, None]:
        """Deltas, then one message with finish reason, citations and usage. Raises NdmlError.

        What the user said is learned also where the caller leaves, or the model fails; not where the request is refused.
        """
        session = _Session(request, call)
        with self._learning.turn(request, call) as turn:
            recalled = await self._recalled(request, call)
            mentions = Mentions()
            with span(semconv.SPAN_GENERATE, {semconv.MEMORY_HITS: len(recalled.chosen)}):
                async with aclosing(self._model.generate(_generate(request, recalled.chosen), call)) as parts:
                    async for part in parts:
                        mentions.feed(part.delta)
                        turn.answered(part.delta)
                        if part.delta:
                            yield chat_pb2.ChatResponse(delta=part.delta)
                        if part.finish_reason:
                            learned = await turn.learned()
                            yield _last(part, recalled, mentions, learned, session.token(recalled.token, learned.token))
                            return
            raise ModelUnavailable("the model's answer broke off: its stream ended without saying why")

    async def _recalled(self, request: chat_pb2.ChatRequest, call: Call) -> _Recalled:
        """What the model is to read. Raises NdmlError for what is wrong with the request; nothing where memory does not answer."""
        k = request.recall_k if request.HasField("recall_k") else self._settings.recall_k
        asked = question(request.messages)
        if not (k and asked):
            return _Recalled()
        try:
            async with asyncio.timeout(self._settings.recall_timeout_s):
                found = await self._search(request, asked, k, call)
        except (*_PASSING, TimeoutError) as error:
            if call.remaining() == 0:
                raise
            _failed.inc()
            log.warning("chat_without_memory", message=str(error) or "recall took longer than chat.recall_timeout_s")
            return _Recalled(stats=types_pb2.SearchStats(shards_total=1, partial=True))
        (_found if found.hits else _nothing).inc()
        chosen = choose(found.hits, k, self._settings.memory_bytes, past=asks_about_the_past(asked))
        return _Recalled(chosen, found.stats, found.consistency_token)

    async def _search(self, request: chat_pb2.ChatRequest, asked: str, k: int, call: Call) -> memory_pb2.SearchMemoriesResponse:
        search = memory_pb2.SearchMemoriesRequest(
            scope=request.scope,
            text=asked,
            k=max(k, self._settings.candidates),
            consistency_token=request.consistency_token,
            include_embedding=request.fusion in _BY_VECTOR,
        )
        # A chat recalls over all sessions of the user: what was said before is the point of it.
        search.scope.session = ""
        latest = time.monotonic() + self._settings.recall_timeout_s
        bounded = replace(call, deadline=latest if call.deadline is None else min(call.deadline, latest))
        return memory_pb2.SearchMemoriesResponse.FromString(await self._recall.search(search, bounded))


def question(messages: Sequence[chat_pb2.ChatMessage]) -> str:
    """What the person asked last; of a conversation without a person, its last words."""
    said = [message.content for message in messages if message.role == chat_pb2.ROLE_USER and message.content]
    return said[-1] if said else next((message.content for message in reversed(messages) if message.content), "")


def _generate(request: chat_pb2.ChatRequest, chosen: Sequence[Chosen]) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(
        messages=request.messages,
        sampling=request.sampling,
        memory=entries(chosen),
        fusion=request.fusion,
        tools=request.tools,
        tool_choice=request.tool_choice,
        model=request.model,
    )


class _Session:
    """What the caller has seen of the owner. Raises ConsistencyTokenInvalid, FieldInvalid for a token that is none."""

    def __init__(self, request: chat_pb2.ChatRequest, call: Call) -> None:
        self._request, self._call = request, call
        self._seen = self._read(request.consistency_token)

    def token(self, *more: str) -> str:
        """With what the chat has seen besides."""
        seen = joined(self._seen, *map(self._read, more))
        return write_consistency_token({self._owner(): seen}) if seen else ""

    def _read(self, token: str) -> dict[int, int]:
        return read_consistency_token(token, self._owner()) if token else {}

    def _owner(self) -> Owner:
        return owner_of(self._request.scope, self._call)


def _last(part: llm_pb2.GenerateResponse, recalled: _Recalled, mentions: Mentions, learned: Learned, token: str) -> chat_pb2.ChatResponse:
    cited, answer_id = citations(recalled.chosen, part.memory_read, mentions.numbers)
    return chat_pb2.ChatResponse(
        finish_reason=part.finish_reason,
        citations=cited,
        usage=part.usage,
        model=part.model,
        recall_stats=recalled.stats,
        answer_id=answer_id,
        tool_calls=part.tool_calls,
        fusion=part.fusion,
        learned_trace_ids=learned.trace_ids,
        consistency_token=token,
    )
