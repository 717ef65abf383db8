"""What tests of the chat path share: a memory of the scripted kind, a model that says what it is told, and a clockless chat around them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import NdmlError
from ndml.internal.v1 import llm_pb2
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime.call import Call
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from ndml.wire import error_to_status
from services.gateway.chat import Chat
from services.gateway.extraction import Extractor, RulesExtractor
from services.gateway.learning import Learning
from services.gateway.ports import NOTHING_SEEN, Done, Embedded, Seen
from services.gateway.recall import Recall
from services.gateway.remember import Remember
from services.gateway.scopes import Owner
from services.gateway.settings import ChatSettings, LearningSettings
from services.gateway.surprise import Surprise
from services.gateway.vectors import VectorSpace

SCOPE = types_pb2.Scope(user="ann", session="s1", agent="")
NOW_S = 1_790_000_000
UNIT = np.array([1, 0], "<f4").tobytes()
IDS = [f"{i:032x}" for i in range(1, 100)]
STOP = llm_pb2.GenerateResponse(
    finish_reason=chat_pb2.FINISH_REASON_STOP, model="m", fusion=chat_pb2.FUSION_WAY_PROMPT, usage=chat_pb2.Usage(prompt_tokens=9)
)


def call(**known: Any) -> Call:
    return Call("/ndml.v1.ChatService/Chat", tenant="t", **known)


class Memory:
    """One owner's node: finds `hits`, stores what is put. Failures are raised by the operations to come, one each."""

    copies_each = 1
    profiles: frozenset[str] = frozenset()

    def __init__(self, hits: Sequence[memory_pb2.SearchHit] = ()) -> None:
        self.hits = list(hits)
        self.searches: list[pb.Operation] = []
        self.puts: list[pb.PutAction] = []
        self.stored: dict[str, types_pb2.MemoryTrace] = {}
        self.read_failures: list[NdmlError] = []
        self.write_failures: list[NdmlError] = []
        self.duplicates: dict[str, str] = {}
        self.outcome_error: dict[str, NdmlError] = {}

    async def execute(
        self,
        owner: Owner,
        operation: pb.Operation,
        call: Call,
        *,
        seen: Seen = NOTHING_SEEN,
        consistency: types_pb2.Consistency = types_pb2.CONSISTENCY_UNSPECIFIED,
    ) -> Done:
        assert (operation.tenant, operation.user) == owner
        if operation.WhichOneof("action") == "search":
            self.searches.append(operation)
            if self.read_failures:
                raise self.read_failures.pop(0)
            found = memory_pb2.SearchMemoriesResponse(hits=self.hits[: operation.search.k])
            return Done(pb.OperationResult(search=pb.SearchResult(responses=[found.SerializeToString()])))
        if self.write_failures:
            raise self.write_failures.pop(0)
        self.puts.append(operation.put)
        return Done(pb.OperationResult(put=pb.PutResult(outcomes=[self._put(t, operation.put) for t in operation.put.traces])), {7: 3})

    def _put(self, trace: types_pb2.MemoryTrace, put: pb.PutAction) -> pb.PutOutcome:
        if trace.text in self.outcome_error:
            return pb.PutOutcome(error=error_to_status(self.outcome_error[trace.text]))
        known = self.duplicates.get(trace.text, "") if put.deduplicate else ""
        if known:
            return pb.PutOutcome(duplicate_of=known)
        existed = trace.trace_id in self.stored
        self.stored.setdefault(trace.trace_id, trace)
        return pb.PutOutcome(learned_at=trace.learned_at, existed=existed)

    def execute_on_all(self, *_: Any) -> Any:
        raise AssertionError("a chat asks its owner alone")

    export = consolidate = execute_on_all

    @property
    def texts(self) -> list[str]:
        return [trace.text for trace in self.stored.values()]


class Encoder:
    async def embed(self, texts: Sequence[str], call: Call) -> list[Embedded]:
        return [Embedded(UNIT) for _ in texts]


Part = llm_pb2.GenerateResponse | NdmlError | Callable[[], Any]


class Model:
    """Streams `parts`: a message, an error to raise, or a callable to await on the way. Reads all memory unless told which."""

    def __init__(self, *parts: Part | str, read: Sequence[int] | None = None) -> None:
        self.parts = parts or ("Lisbon.",)
        self.read = read
        self.requests: list[llm_pb2.GenerateRequest] = []
        self.closed = 0

    async def generate(self, request: llm_pb2.GenerateRequest, call: Call) -> AsyncGenerator[llm_pb2.GenerateResponse, None]:
        self.requests.append(request)
        try:
            for part in self.parts:
                if isinstance(part, NdmlError):
                    raise part
                if isinstance(part, str):
                    yield llm_pb2.GenerateResponse(delta=part)
                elif isinstance(part, llm_pb2.GenerateResponse):
                    yield part
                else:
                    await part()
            last = llm_pb2.GenerateResponse()
            last.CopyFrom(STOP)
            last.memory_read.extend([e.number for e in request.memory] if self.read is None else self.read)
            yield last
        finally:
            self.closed += 1


class Scorer:
    """Says `nats` of every text, or raises `error`."""

    def __init__(self, nats: float = 0.0, error: NdmlError | None = None) -> None:
        self.nats, self.error = nats, error
        self.requests: list[llm_pb2.ScoreRequest] = []

    async def score(self, request: llm_pb2.ScoreRequest, timeout_s: float) -> llm_pb2.ScoreResponse:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return llm_pb2.ScoreResponse(scores=[llm_pb2.TextScore(surprise_nats=self.nats, tokens=3) for _ in request.texts])


class Talk:
    """A chat with its learning. `limits`: LearningSettings; pauses are short, so that tests need not wait."""

    def __init__(
        self,
        memory: Memory | None = None,
        model: Model | None = None,
        scorer: Scorer | None = None,
        extractor: Extractor | None = None,
        chat: ChatSettings | None = None,
        **limits: Any,
    ) -> None:
        self.memory, self.model, self.scorer = memory or Memory(), model or Model(), scorer or Scorer()
        self.settings = LearningSettings(**{"backoff_s": 0.005, "max_backoff_s": 0.01, **limits})
        space = VectorSpace("m", 2)
        recall = Recall(self.memory, Encoder(), space)
        remember = Remember(self.memory, Encoder(), space, lambda: NOW_S * 1000, os.urandom)
        self.surprise = Surprise(self.scorer, self.settings)
        self.learning = Learning(remember, extractor or RulesExtractor(), self.surprise, self.settings)
        self.chat = Chat(recall, self.model, self.learning, chat or ChatSettings())

    async def say(self, *texts: str, known: Call | None = None, **fields: Any) -> list[chat_pb2.ChatResponse]:
        return [part async for part in self.begin(*texts, known=known, **fields)]

    def begin(self, *texts: str, known: Call | None = None, **fields: Any) -> AsyncGenerator[chat_pb2.ChatResponse, None]:
        return self.chat.chat(asking(*texts, **fields), known or call())

    async def learned(self) -> list[str]:
        """Texts in memory, after what waits was written."""
        await self.learning.stop()
        return self.memory.texts


def asking(*texts: str, **fields: Any) -> chat_pb2.ChatRequest:
    """Turns of user and assistant, the user first and last."""
    roles = (chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT)
    messages = [chat_pb2.ChatMessage(role=roles[i % 2], content=text) for i, text in enumerate(texts)]
    return chat_pb2.ChatRequest(**{"scope": SCOPE, "messages": messages, **fields})


def hit(number: int, text: str, *, day: int = 0, score: float = 0.5, speaker: str = "", **fields: Any) -> memory_pb2.SearchHit:
    """A trace that was found, said so many days after NOW_S."""
    said = Timestamp(seconds=NOW_S + 86_400 * day)
    trace = types_pb2.MemoryTrace(trace_id=IDS[number], text=text, said_at=said, speaker=speaker, **fields)
    return memory_pb2.SearchHit(trace=trace, score=score)
