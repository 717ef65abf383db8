"""The batching embedder over a real asynchronous encoder."""

from __future__ import annotations

import asyncio

import pytest

from ndml.errors import ModelUnavailable, Overloaded
from ndml.runtime.call import Call
from services.gateway.embedding import BatchingEmbedder
from services.gateway.ports import Embedded

CALL = Call("/t/T")


class Encoder:
    """Counts what it is asked; `gate` holds a batch until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = False

    async def __call__(self, texts: list[str], traceparent: str) -> list[Embedded]:
        self.batches.append(texts)
        await self.gate.wait()
        if self.broken:
            raise ModelUnavailable("down")
        return made(*texts)


def made(*texts: str) -> list[Embedded]:
    return [Embedded(text.encode(), text.upper().encode()) for text in texts]


def _embedder(encoder: Encoder, **changes: int) -> BatchingEmbedder:
    options = {"cache_entries": 100, "max_batch": 4, "max_batches": 1, "max_queued": 8} | changes
    return BatchingEmbedder(encoder, **options)


async def test_order_duplicates_and_cache() -> None:
    encoder = Encoder()
    embedder = _embedder(encoder)
    assert await embedder.embed(["b", "a", "b"], CALL) == made("b", "a", "b")
    assert await embedder.embed(["a", "c"], CALL) == made("a", "c")
    assert sorted(sum(encoder.batches, [])) == ["a", "b", "c"]


async def test_what_queues_while_a_batch_runs_goes_together() -> None:
    encoder = Encoder()
    encoder.gate.clear()
    embedder = _embedder(encoder)
    waiting = [asyncio.create_task(embedder.embed([str(i)], CALL)) for i in range(6)]
    await asyncio.sleep(0.01)
    encoder.gate.set()
    assert await asyncio.gather(*waiting) == [made(str(i)) for i in range(6)]
    assert len(encoder.batches) <= 3
    assert max(map(len, encoder.batches)) == 4


async def test_full_queue_is_overload_and_recovers() -> None:
    encoder = Encoder()
    encoder.gate.clear()
    embedder = _embedder(encoder)
    running = asyncio.create_task(embedder.embed(["first"], CALL))
    await asyncio.sleep(0.01)
    queued = asyncio.create_task(embedder.embed([str(i) for i in range(8)], CALL))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await embedder.embed(["one too many"], CALL)
    encoder.gate.set()
    await running
    assert len(await queued) == 8
    assert await embedder.embed(["one too many"], CALL) == made("one too many")


async def test_failure_reaches_all_who_wait_and_is_not_cached() -> None:
    encoder = Encoder()
    encoder.broken = True
    embedder = _embedder(encoder)
    for result in await asyncio.gather(*(embedder.embed(["x"], CALL) for _ in range(3)), return_exceptions=True):
        assert isinstance(result, ModelUnavailable)
    encoder.broken = False
    assert await embedder.embed(["x"], CALL) == made("x")


async def test_one_caller_leaving_does_not_take_the_text_from_the_other() -> None:
    encoder = Encoder()
    encoder.gate.clear()
    embedder = _embedder(encoder)
    leaving = asyncio.create_task(embedder.embed(["shared"], CALL))
    staying = asyncio.create_task(embedder.embed(["shared"], CALL))
    await asyncio.sleep(0.01)
    leaving.cancel()
    encoder.gate.set()
    assert await staying == made("shared")
    assert encoder.batches == [["shared"]]
