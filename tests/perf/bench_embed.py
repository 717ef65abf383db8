"""Embedding rate of the llm service's batching against the bare model, same texts, same process, paired runs.

    python tests/perf/bench_embed.py [--texts 512] [--rounds 5] [--json FILE]

Bare model: the texts sorted by length, batches of 32, transformers' forward pass and mean pooling with torch's own thread count: what
sentence-transformers does. Ours: callers that send requests of 8 texts at once, through EmbeddingQueue, to a model whose layers are packed
(services/llm/packed.py). Also the latency of one short text: by the bare model on one thread, alone through the queue (by turns), and while
an import keeps the queue busy. Run it on a quiet machine: OpenMP (bare) suffers more from company than workers do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from services.llm.batching import BatchLimits, EmbeddingQueue
from services.llm.cores import usable_cores
from services.llm.encoder import HuggingFaceEncoder
from services.llm.models import torch_threads
from services.llm.settings import EmbeddingSection

WORDS = "the of we went yesterday dog Anna notebook meeting river because maybe quarterly Lisbon remembers painting train cold soup".split()  # noqa: SIM905


def make_texts(count: int) -> list[str]:
    """Turns of a conversation: 3 to 60 words, most of them short, no two alike."""
    source = random.Random(5)
    lengths = [min(60, 3 + int(source.expovariate(1 / 14))) for _ in range(count)]
    return [f"{n} " + " ".join(source.choice(WORDS) for _ in range(length)) for n, length in enumerate(lengths)]


def bare(encoder: HuggingFaceEncoder, texts: list[str], batch: int = 32) -> float:
    """Texts per second of the model alone."""
    began = time.perf_counter()
    tokens = sorted(encoder.tokenize(texts), key=lambda t: -len(t.ids))
    for start in range(0, len(tokens), batch):
        encoder.encode(tokens[start : start + batch], token_vectors=False)
    return len(texts) / (time.perf_counter() - began)


async def through_queue(queue: EmbeddingQueue, texts: list[str], size: int = 8) -> float:
    """Texts per second through the queue, requests of `size` texts, 64 under way."""
    gate = asyncio.Semaphore(64)

    async def one(part: list[str]) -> None:
        async with gate:
            await queue.embed(part)

    began = time.perf_counter()
    await asyncio.gather(*(one(texts[i : i + size]) for i in range(0, len(texts), size)))
    return len(texts) / (time.perf_counter() - began)


async def latency(queue: EmbeddingQueue, number: int) -> float:
    """Milliseconds of one short text."""
    began = time.perf_counter()
    await queue.embed([f"where did Anna put the notebook number {number}"])
    return 1000 * (time.perf_counter() - began)


def bare_latency(encoder: HuggingFaceEncoder, number: int) -> float:
    """The same by the model alone."""
    return 1000 / bare(encoder, [f"where did Anna put the notebook number {number}"])


async def latencies_under_import(queue: EmbeddingQueue, texts: list[str]) -> list[float]:
    """The same while imports of 256 texts a request go through."""
    imports = [asyncio.create_task(queue.embed([f"{k} {t}" for t in texts[:256]])) for k in range(3)]
    found: list[float] = []
    while not all(task.done() for task in imports):
        found.append(await latency(queue, len(found)))
    await asyncio.gather(*imports)
    return found


async def measure(count: int, rounds: int, settings: EmbeddingSection) -> dict[str, float]:
    encoder, plain = HuggingFaceEncoder.load(settings), HuggingFaceEncoder.load(settings, packed=False)
    limits = BatchLimits(settings.workers, settings.batch_tokens, settings.queue_texts, settings.max_token_vector_bytes)
    queue = EmbeddingQueue(lambda: encoder, limits, torch_threads(settings.torch_threads))
    await queue.start()
    texts = make_texts(count)
    torch.set_num_threads(usable_cores())
    bare(plain, texts[:64])
    await through_queue(queue, texts[:64])
    pairs = [(bare(plain, texts), await through_queue(queue, texts)) for _ in range(rounds)]
    torch.set_num_threads(1)
    one_thread = bare(plain, texts)
    single = [(bare_latency(plain, n), await latency(queue, n)) for n in range(50)]
    busy = await latencies_under_import(queue, texts)
    await queue.stop()
    tokens = [len(t.ids) for t in encoder.tokenize(texts)]
    return {
        "texts": count,
        "tokens_per_text": float(np.mean(tokens)),
        "bare_texts_per_s": statistics.median(b for b, _ in pairs),
        "bare_one_thread_texts_per_s": one_thread,
        "service_texts_per_s": statistics.median(s for _, s in pairs),
        "ratio": statistics.median(s / b for b, s in pairs),
        "bare_one_text_ms_p50": statistics.median(b for b, _ in single),
        "one_text_ms_p50": statistics.median(o for _, o in single),
        "one_text_during_import_ms_p50": statistics.median(busy),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=EmbeddingSection().batch_tokens)
    parser.add_argument("--model", default=EmbeddingSection().model)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = EmbeddingSection(model=options.model, batch_tokens=options.batch_tokens)
    result = asyncio.run(measure(options.texts, options.rounds, settings))
    for name, value in result.items():
        print(f"{name:32} {value:10.2f}")
    print(f"target: ratio >= 0.9 -> {'reached' if result['ratio'] >= 0.9 else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
