from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import DeadlinePassed, Draining, FieldInvalid, ModelUnavailable, Overloaded
from services.llm.batching import BatchLimits, EmbeddingQueue, pack
from services.llm.encoder import HuggingFaceEncoder
from services.llm.ports import Embedding, Encoder, Tokens

Clock = Callable[[], float]
LIMITS = BatchLimits(workers=2, batch_tokens=256, queue_texts=512, max_token_vector_bytes=1 << 20)
TEXTS = [f"On day {n} Anna moved {n * 7} boxes {'and then rested ' * (n % 17)}" for n in range(120)]


class Gated:
    """The real encoder behind a gate, so that a test decides when a batch runs; keeps what it was given."""

    parallel = 1
    pass_tokens = 24

    def __init__(self, inner: HuggingFaceEncoder) -> None:
        self._inner = inner
        self.model, self.dimension, self.max_tokens = inner.model, inner.dimension, inner.max_tokens
        self.gate, self.entered = threading.Event(), threading.Event()
        self.seen: list[Tokens] = []
        self.sizes: list[int] = []
        self.failure: Exception | None = None
        self.before: Callable[[], None] = lambda: None

    def tokenize(self, texts: Sequence[str], words: Collection[int] = ()) -> list[Tokens]:
        return self._inner.tokenize(texts, words)

    def encode(self, batch: Sequence[Tokens], token_vectors: bool) -> list[Embedding]:
        self.entered.set()
        assert self.gate.wait(60)
        self.before()
        self.sizes.append(len(batch))
        self.seen += batch
        if self.failure is not None:
            raise self.failure
        return self._inner.encode(batch, token_vectors)


@asynccontextmanager
async def running(encoder: Encoder, limits: BatchLimits = LIMITS, clock: Clock = time.monotonic) -> AsyncIterator[EmbeddingQueue]:
    queue = EmbeddingQueue(lambda: encoder, limits, lambda: torch.set_num_threads(1), clock)
    await queue.start()
    try:
        yield queue
    finally:
        if isinstance(encoder, Gated):
            encoder.gate.set()
        await queue.stop()


@asynccontextmanager
async def blocked(
    minilm: HuggingFaceEncoder, limits: BatchLimits, clock: Clock = time.monotonic
) -> AsyncIterator[tuple[EmbeddingQueue, Gated]]:
    """A queue whose only worker stands at the gate with the text "first"."""
    gated = Gated(minilm)
    async with running(gated, limits, clock) as queue:
        first = asyncio.create_task(queue.embed(["first"]))
        assert await asyncio.to_thread(gated.entered.wait, 60)
        yield queue, gated
        gated.gate.set()
        assert len(await first) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 300), max_size=80), st.integers(64, 1024), st.integers(0, 200))
def test_pack_holds_every_text_once_within_the_budget(lengths: list[int], budget: int, pass_tokens: int) -> None:
    batches = pack(lengths, budget, pass_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        size = len(batch) * max(lengths[i] for i in batch)
        assert size <= budget or len(batch) == 1
        assert size - sum(lengths[i] for i in batch) <= pass_tokens


async def test_concurrent_callers_get_what_they_would_get_alone(minilm: HuggingFaceEncoder) -> None:
    alone = {text: minilm.encode(minilm.tokenize([text]), True)[0] for text in TEXTS}
    requests = [TEXTS[i : i + 1 + i % 13] for i in range(0, 110, 3)]
    async with running(minilm) as queue:
        answers = await asyncio.gather(*(queue.embed(texts, token_vectors=n % 3 == 0) for n, texts in enumerate(requests)))
    for n, (texts, answer) in enumerate(zip(requests, answers, strict=True)):
        assert len(answer) == len(texts)
        for text, made in zip(texts, answer, strict=True):
            np.testing.assert_allclose(made.vector, alone[text].vector, atol=1e-5)
            if n % 3 == 0:
                tokens, expected = made.token_vectors, alone[text].token_vectors
                assert tokens is not None and expected is not None
                np.testing.assert_allclose(tokens, expected, atol=1e-4)


async def test_word_vectors_are_made_for_the_texts_of_those_who_ask(minilm: HuggingFaceEncoder) -> None:
    async with blocked(minilm, BatchLimits(1, 256, 512, 1 << 20)) as (queue, gated):
        asking = asyncio.create_task(queue.embed(["the red notebook", "shared shelf"], word_vectors=True))
        others = asyncio.create_task(queue.embed(["shared shelf", "own words"]))
        await asyncio.sleep(0)
        gated.gate.set()
        asked, unasked = await asyncio.gather(asking, others)
    assert len(gated.seen) == 1 + 3
    assert [None if e.word_vectors is None else len(e.word_vectors) for e in asked] == [2 * minilm.dimension] * 2
    assert unasked[0] is asked[1] and unasked[1].word_vectors is None
    alone = minilm.encode(minilm.tokenize(["the red notebook"], [0]), False)[0].word_vectors
    assert alone is not None and asked[0].word_vectors is not None
    together = np.frombuffer(asked[0].word_vectors, np.int8).astype(int)
    assert np.abs(together - np.frombuffer(alone, np.int8)).max() <= 1


async def test_equal_texts_of_different_callers_are_encoded_once(minilm: HuggingFaceEncoder) -> None:
    async with blocked(minilm, BatchLimits(1, 256, 512, 1 << 20)) as (queue, gated):
        waiting = [asyncio.create_task(queue.embed(["same", "same", f"own {n}"])) for n in range(4)]
        await asyncio.sleep(0)
        gated.gate.set()
        answers = await asyncio.gather(*waiting)
    assert len(gated.seen) == 1 + 1 + 4
    assert all(answer[0] is answer[1] for answer in answers)


async def test_full_queue_is_overloaded_with_a_delay_and_recovers(minilm: HuggingFaceEncoder) -> None:
    async with blocked(minilm, BatchLimits(1, 256, 256, 1 << 20)) as (queue, gated):
        accepted = asyncio.create_task(queue.embed([f"text {n}" for n in range(256)]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="256 texts wait") as caught:
            await queue.embed(["one more"])
        assert caught.value.retry_after_s is not None
        assert 0.1 <= caught.value.retry_after_s <= 10
        gated.gate.set()
        assert len(await accepted) == 256
        assert len(await queue.embed(["one more"])) == 1


async def test_a_caller_that_left_frees_its_room_and_costs_no_compute(minilm: HuggingFaceEncoder) -> None:
    async with blocked(minilm, BatchLimits(1, 256, 256, 1 << 20)) as (queue, gated):
        gone = asyncio.create_task(queue.embed([f"gone {n}" for n in range(256)]))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        stays = asyncio.create_task(queue.embed([f"stays {n}" for n in range(256)]))
        await asyncio.sleep(0)
        gated.gate.set()
        assert len(await stays) == 256
    assert len(gated.seen) == 1 + 256


async def test_batches_that_are_ready_are_dropped_with_their_caller(minilm: HuggingFaceEncoder) -> None:
    dense = [f"{n} " + "! " * 30 for n in range(8)]  # some 33 tokens each: one take of several batches
    async with blocked(minilm, BatchLimits(1, 64, 512, 1 << 20)) as (queue, gated):
        loop, left = asyncio.get_running_loop(), threading.Event()
        gone = asyncio.create_task(queue.embed(dense))
        gone.add_done_callback(lambda _: left.set())
        await asyncio.sleep(0)

        def leave() -> None:
            if len(gated.seen) == 1:
                loop.call_soon_threadsafe(gone.cancel)
                assert left.wait(60)

        gated.before = leave
        gated.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert len(await queue.embed(["after"])) == 1
    assert gated.sizes == [1, 1, 1], "one batch of one text was under way, the others were not run at all"
    assert [len(tokens.ids) > 30 for tokens in gated.seen] == [False, True, False]


async def test_a_deadline_that_passed_in_the_queue_costs_no_compute(minilm: HuggingFaceEncoder) -> None:
    now = [100.0]
    async with blocked(minilm, BatchLimits(1, 256, 512, 1 << 20), clock=lambda: now[0]) as (queue, gated):
        late = asyncio.create_task(queue.embed(["late"], remaining_s=1.0))
        patient = asyncio.create_task(queue.embed(["patient"], remaining_s=60.0))
        await asyncio.sleep(0)
        now[0] += 2.0
        gated.gate.set()
        with pytest.raises(DeadlinePassed):
            await late
        assert len(await patient) == 1
    assert len(gated.seen) == 2


async def test_a_take_in_which_everybody_is_late_is_no_batch(minilm: HuggingFaceEncoder) -> None:
    now = [100.0]
    async with blocked(minilm, BatchLimits(1, 256, 512, 1 << 20), clock=lambda: now[0]) as (queue, gated):
        late = asyncio.create_task(queue.embed(["late"], remaining_s=1.0))
        await asyncio.sleep(0)
        now[0] += 2.0
        gated.gate.set()
        with pytest.raises(DeadlinePassed):
            await late
        assert len(await queue.embed(["next"])) == 1
    assert len(gated.seen) == 2


async def test_one_question_does_not_wait_for_the_whole_of_an_import(minilm: HuggingFaceEncoder) -> None:
    async with blocked(minilm, BatchLimits(1, 256, 1024, 1 << 20)) as (queue, gated):
        bulk = asyncio.create_task(queue.embed([f"imported row number {n} of many others" for n in range(256)]))
        await asyncio.sleep(0)
        question = asyncio.create_task(queue.embed(["where is the notebook"]))
        await asyncio.sleep(0)
        gated.gate.set()
        await question
        assert not bulk.done()
        assert len(gated.seen) < 128
        await bulk


async def test_a_failing_model_is_told_to_its_callers_and_the_next_batch_runs(minilm: HuggingFaceEncoder) -> None:
    gated = Gated(minilm)
    gated.gate.set()
    gated.failure = RuntimeError("out of memory")
    async with running(gated) as queue:
        with pytest.raises(ModelUnavailable, match="out of memory"):
            await queue.embed(["a", "b"])
        gated.failure = None
        assert len(await queue.embed(["a", "b"])) == 2


async def test_stop_answers_those_who_wait(minilm: HuggingFaceEncoder) -> None:
    gated = Gated(minilm)
    queue = EmbeddingQueue(lambda: gated, BatchLimits(1, 256, 512, 1 << 20))
    await queue.start()
    first = asyncio.create_task(queue.embed(["first"]))
    assert await asyncio.to_thread(gated.entered.wait, 60)
    second = asyncio.create_task(queue.embed(["second"]))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(queue.stop())
    with pytest.raises(Draining):
        await second
    gated.gate.set()
    await stopping
    assert len(await first) == 1, "the batch under way is finished"
    with pytest.raises(Draining):
        await queue.embed(["third"])


async def test_token_vectors_that_no_message_holds_are_refused_with_the_number_that_fits(minilm: HuggingFaceEncoder) -> None:
    async with running(minilm, BatchLimits(1, 256, 512, 1 << 20)) as queue:
        with pytest.raises(FieldInvalid, match="2 texts always fit") as caught:
            await queue.embed([f"{n} " + "word " * 250 for n in range(4)], token_vectors=True)
        assert caught.value.violations[0].field == "texts"
        assert len(await queue.embed(["short"] * 64, token_vectors=True)) == 64


async def test_a_model_that_cannot_load_fails_the_start() -> None:
    def load() -> Encoder:
        raise ModelUnavailable("no such model")

    queue = EmbeddingQueue(load, LIMITS)
    with pytest.raises(ModelUnavailable, match="no such model"):
        await queue.start()
    with pytest.raises(ModelUnavailable, match="still loading"):
        await queue.embed(["too early"])
