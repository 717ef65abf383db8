"""LlmService: proto <-> domain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.internal.v1 import llm_pb2 as pb
from ndml.runtime import semconv
from ndml.runtime.call import Call
from ndml.runtime.telemetry import span
from services.llm.asks import ask_of, chat_info, end_of
from services.llm.batching import EmbeddingQueue
from services.llm.joint import JointQueue
from services.llm.measured import measured
from services.llm.ports import Embedding, Finish, Generator, Media


class LlmServicer:
    """One method for each RPC."""

    def __init__(self, queue: EmbeddingQueue, joint: JointQueue, generator: Generator, version: str, started_at: float) -> None:
        self._queue, self._joint, self._generator, self._version = queue, joint, generator, version
        self._started_at = Timestamp()
        self._started_at.FromNanoseconds(int(started_at * 1e9))

    async def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse:
        with span(semconv.SPAN_EMBED, {semconv.BATCH_SIZE: len(request.texts)}):
            embeddings = await self._queue.embed(
                list(request.texts), request.token_vectors, call.remaining(), word_vectors=request.word_vectors
            )
        encoder = self._queue.encoder
        answer = [_embedding(e, request) for e in embeddings]
        return pb.EmbedResponse(embeddings=answer, dimension=encoder.dimension, model=encoder.model)

    async def EmbedJoint(self, request: pb.EmbedJointRequest, call: Call) -> pb.EmbedJointResponse:
        with span(semconv.SPAN_EMBED, {semconv.BATCH_SIZE: len(request.texts) + len(request.contents)}):
            inputs = [Media(content.media_type, content.data) for content in request.contents]
            return pb.EmbedJointResponse(vectors=await self._joint.embed(request.space, list(request.texts), inputs, call.remaining()))

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> AsyncIterator[pb.GenerateResponse]:
        async with aclosing(self._generator.generate(ask_of(request), call.remaining())) as pieces:
            async for piece in measured(pieces, call):
                yield end_of(piece, self._generator.model) if isinstance(piece, Finish) else pb.GenerateResponse(delta=piece)

    async def Score(self, request: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        scores = await self._generator.score(list(request.texts), request.context, call.remaining())
        answer = [pb.TextScore(surprise_nats=score.surprise, tokens=score.tokens) for score in scores]
        return pb.ScoreResponse(scores=answer, model=self._generator.model)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, call: Call) -> pb.GetModelInfoResponse:
        encoder = self._queue.encoder
        info = pb.GetModelInfoResponse(version=self._version, started_at=self._started_at)
        info.MergeFrom(pb.GetModelInfoResponse(embedding_model=encoder.model, dimension=encoder.dimension, max_tokens=encoder.max_tokens))
        info.MergeFrom(chat_info(self._generator.model, self._generator.abilities))
        info.spaces.extend(pb.JointSpace(name=name, dimension=e.dimension, media=e.media) for name, e in self._joint.encoders.items())
        return info


def _embedding(embedding: Embedding, request: pb.EmbedRequest) -> pb.TextEmbedding:
    """A text that shares its batch with one whose caller asked for more may have that too: it goes only to who asked."""
    made = pb.TextEmbedding(vector=embedding.vector.astype("<f4", copy=False).tobytes(), truncated=embedding.tokens.truncated)
    if request.token_vectors and embedding.token_vectors is not None:
        made.token_vectors = embedding.token_vectors.astype("<f4", copy=False).tobytes()
        made.token_ids.extend(embedding.tokens.ids)
    if request.word_vectors and embedding.word_vectors is not None:
        made.word_vectors = embedding.word_vectors
    return made
