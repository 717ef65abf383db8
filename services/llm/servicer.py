"""LlmService: proto <-> domain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.internal.v1 import llm_pb2 as pb
from ndml.runtime import semconv
from ndml.runtime.call import Call
from ndml.runtime.telemetry import span
from ndml.v1 import chat_pb2 as chat
from services.llm.batching import EmbeddingQueue
from services.llm.ports import Embedding, Finish, Generator, Message, RoleName, Sampling

_ROLES: dict[int, RoleName] = {chat.ROLE_SYSTEM: "system", chat.ROLE_USER: "user", chat.ROLE_ASSISTANT: "assistant"}
_REASONS = {"stop": chat.FINISH_REASON_STOP, "length": chat.FINISH_REASON_LENGTH}


class LlmServicer:
    """One method for each RPC."""

    def __init__(self, queue: EmbeddingQueue, generator: Generator, version: str, started_at: float) -> None:
        self._queue, self._generator, self._version = queue, generator, version
        self._started_at = Timestamp()
        self._started_at.FromNanoseconds(int(started_at * 1e9))

    async def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse:
        with span(semconv.SPAN_EMBED, {semconv.BATCH_SIZE: len(request.texts)}):
            embeddings = await self._queue.embed(list(request.texts), request.token_vectors, call.remaining())
        encoder = self._queue.encoder
        answer = [_embedding(e, request.token_vectors) for e in embeddings]
        return pb.EmbedResponse(embeddings=answer, dimension=encoder.dimension, model=encoder.model)

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> AsyncIterator[pb.GenerateResponse]:
        messages = [Message(_ROLES[m.role], m.content) for m in request.messages]
        async with aclosing(self._generator.generate(messages, _sampling(request.sampling), call.remaining())) as pieces:
            async for piece in pieces:
                yield self._end(piece) if isinstance(piece, Finish) else pb.GenerateResponse(delta=piece)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, call: Call) -> pb.GetModelInfoResponse:
        encoder = self._queue.encoder
        return pb.GetModelInfoResponse(
            embedding_model=encoder.model,
            dimension=encoder.dimension,
            max_tokens=encoder.max_tokens,
            chat_model=self._generator.model,
            version=self._version,
            started_at=self._started_at,
        )

    def _end(self, finish: Finish) -> pb.GenerateResponse:
        usage = chat.Usage(prompt_tokens=finish.prompt_tokens, completion_tokens=finish.completion_tokens)
        return pb.GenerateResponse(finish_reason=_REASONS[finish.reason], usage=usage, model=self._generator.model)


def _embedding(embedding: Embedding, token_vectors: bool) -> pb.TextEmbedding:
    """A text that shares its batch with a caller who asked for token vectors has them too: they go only to who asked."""
    made = pb.TextEmbedding(vector=embedding.vector.astype("<f4", copy=False).tobytes(), truncated=embedding.tokens.truncated)
    if token_vectors and embedding.token_vectors is not None:
        made.token_vectors = embedding.token_vectors.astype("<f4", copy=False).tobytes()
        made.token_ids.extend(embedding.tokens.ids)
    return made


def _sampling(options: chat.SamplingOptions) -> Sampling:
    """0 stands for the default in each field."""
    temperature, top_p = round(options.temperature, 6), round(options.top_p, 6)  # float32 turns 0.7 into 0.699999988
    return Sampling(options.max_new_tokens or None, temperature, top_p or 1.0, tuple(s for s in options.stop if s), options.seed or None)
