"""The llm service's replicas as the gateway asks them, against real gRPC servers on loopback; and ModelService on top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from ndml.errors import Draining, FusionUnsupported, ModelNotConfigured, ModelUnavailable, ModelUnknown, NdmlError, Overloaded
from ndml.internal.v1 import llm_pb2, llm_pb2_grpc
from ndml.runtime.addresses import Addresses
from ndml.runtime.call import Call
from ndml.runtime.channel import Dialer
from ndml.testing.ports import free_ports
from ndml.v1 import chat_pb2, model_pb2
from ndml.wire import to_grpc_status
from services.gateway.embedding import BatchingEmbedder
from services.gateway.models import Models
from services.gateway.remotes import LlmRemote
from services.gateway.replicas import Replicas
from services.gateway.servicer import ModelServicer
from services.gateway.vectors import VectorSpace

SPACE = VectorSpace("words", 2)
CALL = Call("/ndml.v1.ModelService/X", tenant="t")
UNIT = np.array([1, 0], "<f4").tobytes()


class Replica(llm_pb2_grpc.LlmServiceServicer):
    """One llm service. `fails`: what it answers everything with; `after`: deltas before it does."""

    def __init__(self, name: str, fails: NdmlError | None = None, after: int = 0) -> None:
        self.name, self.fails, self.after = name, fails, after
        self.asked = 0
        self.left = asyncio.Event()
        self.info = llm_pb2.GetModelInfoResponse(
            embedding_model="words", dimension=2, max_tokens=256, chat_model=name, context_tokens=2048, scores=True
        )

    async def _maybe(self, context: Any) -> None:
        self.asked += 1
        if self.fails is not None:
            await context.abort_with_status(to_grpc_status(self.fails))

    async def Embed(self, request: llm_pb2.EmbedRequest, context: Any) -> llm_pb2.EmbedResponse:
        vectors = [llm_pb2.TextEmbedding(vector=np.array([len(text), 0], "<f4").tobytes()) for text in request.texts]
        for vector, text in zip(vectors, request.texts, strict=True):
            vector.word_vectors = text.encode() if request.word_vectors else b""
        return llm_pb2.EmbedResponse(embeddings=vectors, dimension=2, model="words")

    async def Generate(self, request: llm_pb2.GenerateRequest, context: Any) -> AsyncIterator[llm_pb2.GenerateResponse]:
        try:
            for i in range(self.after):
                yield llm_pb2.GenerateResponse(delta=f"{i}")
            await self._maybe(context)
            yield llm_pb2.GenerateResponse(delta=self.name)
            if request.model == "endless":
                await asyncio.Event().wait()
            yield llm_pb2.GenerateResponse(finish_reason=chat_pb2.FINISH_REASON_STOP)
        finally:
            self.left.set()

    async def Score(self, request: llm_pb2.ScoreRequest, context: Any) -> llm_pb2.ScoreResponse:
        await self._maybe(context)
        return llm_pb2.ScoreResponse(scores=[llm_pb2.TextScore(surprise_nats=2.0, tokens=1) for _ in request.texts])

    async def GetModelInfo(self, request: llm_pb2.GetModelInfoRequest, context: Any) -> llm_pb2.GetModelInfoResponse:
        await self._maybe(context)
        return self.info


@asynccontextmanager
async def remote(*replicas: Replica, absent: int = 0, word_vectors: bool = True) -> AsyncIterator[LlmRemote]:
    """The gateway's view of these replicas, in front of which stand addresses where nobody listens."""
    async with AsyncExitStack() as stack:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(absent)] if absent else []
        for replica in replicas:
            server = grpc.aio.server()
            llm_pb2_grpc.add_LlmServiceServicer_to_server(replica, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
        llm = LlmRemote(Replicas(Dialer(), Addresses(addresses)), SPACE, 30.0, word_vectors)
        stack.push_async_callback(llm.stop)
        yield llm


async def text(llm: LlmRemote) -> str:
    return "".join([part.delta async for part in llm.generate(llm_pb2.GenerateRequest(), CALL)])


@pytest.mark.parametrize("fails", [Draining("going"), Overloaded("full")])
async def test_a_replica_that_has_not_begun_leaves_it_to_the_next(fails: NdmlError) -> None:
    async with remote(Replica("a", fails), Replica("b"), absent=1) as llm:
        for _ in range(3):
            assert await text(llm) == "b"
            assert (await llm.info(CALL)).chat_model == "b"
            assert len((await llm.score(llm_pb2.ScoreRequest(texts=["x", "y"]), 30.0)).scores) == 2


async def test_what_has_begun_is_not_begun_again() -> None:
    first, second = Replica("a", Overloaded("full"), after=2), Replica("b", Overloaded("full"), after=2)
    async with remote(first, second) as llm:
        with pytest.raises(Overloaded):
            await text(llm)
    assert first.asked + second.asked == 1


@pytest.mark.parametrize("ask", [text, lambda llm: llm.info(CALL), lambda llm: llm.score(llm_pb2.ScoreRequest(texts=["x"]), 30.0)])
async def test_where_nobody_answers_the_model_is_unavailable_and_what_one_refuses_is_refused(ask: Callable[[LlmRemote], Any]) -> None:
    async with remote(absent=2) as llm:
        with pytest.raises(ModelUnavailable, match=r"llm\.addresses"):
            await ask(llm)
    async with remote(Replica("a", Draining("going"))) as llm:
        with pytest.raises(ModelUnavailable, match="the llm service is starting or stopping") as starting:
            await ask(llm)
        assert starting.value.retry_after_s
    only = Replica("a", FusionUnsupported("no adapter"))
    async with remote(only, Replica("b", FusionUnsupported("no adapter"))) as llm:
        with pytest.raises(FusionUnsupported):
            await ask(llm)


async def test_a_replica_that_is_too_slow_to_say_what_it_is_counts_as_away() -> None:
    class Slow(Replica):
        async def Score(self, *_: Any) -> llm_pb2.ScoreResponse:
            await asyncio.Event().wait()
            return llm_pb2.ScoreResponse()

    async with remote(Slow("a")) as llm:
        with pytest.raises(ModelUnavailable):
            await llm.score(llm_pb2.ScoreRequest(texts=["x"]), 0.05)


async def test_closing_the_stream_stops_the_model() -> None:
    replica = Replica("a")
    async with remote(replica) as llm:
        parts = llm.generate(llm_pb2.GenerateRequest(model="endless"), CALL)
        assert (await anext(parts)).delta == "a"
        await parts.aclose()
        async with asyncio.timeout(30):
            await replica.left.wait()


@asynccontextmanager
async def serving(replica: Replica) -> AsyncIterator[ModelServicer]:
    async with remote(replica) as llm:
        embedder = BatchingEmbedder(llm.encode, cache_entries=9, max_batch=2, max_batches=1, max_queued=9)
        yield ModelServicer(Models(llm, embedder, SPACE))
        await embedder.stop()


async def test_models_are_those_of_the_llm_service() -> None:
    replica = Replica("tiny")
    async with serving(replica) as servicer:
        listed = (await servicer.ListModels(model_pb2.ListModelsRequest(), CALL)).models
        assert [(m.id, m.purpose, m.dimension, m.max_tokens) for m in listed] == [
            ("tiny", model_pb2.MODEL_PURPOSE_CHAT, 0, 2048),
            ("words", model_pb2.MODEL_PURPOSE_EMBEDDING, 2, 256),
        ]
        replica.info.chat_model = ""
        assert [m.id for m in (await servicer.ListModels(model_pb2.ListModelsRequest(), CALL)).models] == ["words"]


async def test_texts_are_embedded_in_order_and_only_by_the_model_there_is() -> None:
    async with serving(Replica("tiny")) as servicer:
        for model in ("", "words"):
            answer = await servicer.EmbedTexts(model_pb2.EmbedTextsRequest(texts=["a", "bbb", "cc", "a"], model=model), CALL)
            assert [np.frombuffer(vector, "<f4")[0] for vector in answer.embeddings] == [1, 3, 2, 1]
            assert (answer.dimension, answer.model) == (2, "words")
        with pytest.raises(ModelUnknown, match="'words'") as refused:
            await servicer.EmbedTexts(model_pb2.EmbedTextsRequest(texts=["a"], model="other"), CALL)
        assert refused.value.violations[0].field == "model"


async def test_word_vectors_are_asked_for_where_the_settings_say_so() -> None:
    for asked in (True, False):
        async with remote(Replica("tiny"), word_vectors=asked) as llm:
            assert [made.words for made in await llm.encode(["a", "bb"], "")] == ([b"a", b"bb"] if asked else [b"", b""])


async def test_a_service_with_another_space_is_refused() -> None:
    class Other(Replica):
        async def Embed(self, request: llm_pb2.EmbedRequest, context: Any) -> llm_pb2.EmbedResponse:
            return llm_pb2.EmbedResponse(embeddings=[llm_pb2.TextEmbedding(vector=UNIT)], dimension=2, model="others")

    async with serving(Other("tiny")) as servicer:
        with pytest.raises(ModelNotConfigured, match="'others'"):
            await servicer.EmbedTexts(model_pb2.EmbedTextsRequest(texts=["a"]), CALL)
