"""What becomes of a scope as it grows: recall, latency, memory, and the first search after a restart: `make eval-scopes`.

python -m tests.quality.recall.scopes [--sizes 1000,10000,100000,1000000] [--searches N] [--page FILE]

An agent's task log with its questions lies among made-up talk, written with vectors of its own: turns that a model embedded, each moved
at random, so that a million need no hours of embedding. Words are the turns' own.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import psutil

from ndml.client import NewMemory, Query, SearchMode
from ndml.testing import Suite, SuiteOptions
from tests.perf.tables import Part, Table, as_markdown
from tests.quality.embedded import F32, embed
from tests.quality.made_up import made_up_turns
from tests.quality.recall import tasks
from tests.quality.recall.costs import MODES, alternate, client_of, resident
from tests.quality.recall.measures import DEPTH, Asked

_NODE = "memory-node-1"
_SEEDS = 4000
"""Turns that the model embeds; the others are near one of these."""
_APART = 0.75
"""How far, as a share of the vector: the cosine of two that came from one turn is about .64."""
_SESSION = 20  # turns
_TEXTS_AT_ONCE = 50_000
_ABOVE = """# Scopes by size

Written by `make eval-scopes`. One scope grows; its recall and cost are measured at each size. An agent's task log with its questions
(`tests/quality/recall/tasks.py`) lies among made-up talk (`tests/quality/made_up.py`), said before it. The talk is written with vectors
given: turns that the model embedded, each moved at random. So the figures are of the store and the search, not of the embedding. R@10 in
percent, p50 in milliseconds of one caller with the query's vector cached, client included; *written* is memories a second, with texts and
vectors, judged by the write gate and on disk."""


def filler(count: int, seed: int) -> Iterator[NewMemory]:
    """Talk of the time before the log, in sessions."""
    random, noise = Random(seed), np.random.default_rng(seed)
    bases: F32 = embed(made_up_turns(_SEEDS, Random(0)))
    began = datetime(2020, 1, 1, tzinfo=UTC)
    for start in range(0, count, _TEXTS_AT_ONCE):
        texts = made_up_turns(min(_TEXTS_AT_ONCE, count - start), random)
        vectors = bases[noise.integers(0, len(bases), len(texts))]
        moved = noise.standard_normal(vectors.shape, np.float32) * np.float32(_APART / np.sqrt(vectors.shape[1]))
        for i, (text, vector) in enumerate(zip(texts, vectors + moved, strict=True), start):
            speaker, _, words = text.partition(": ")
            said = began + timedelta(seconds=60 * i)
            yield NewMemory(words, speaker=speaker, said_at=said, session=f"talk-{seed}-{i // _SESSION}", embedding=vector)


def measure(folder: Path, sizes: Sequence[int], searches: int) -> Part:
    """Raises NdmlError, SuiteError."""
    [log] = tasks.stores(1)
    rows: list[tuple[str, ...]] = []
    settings = {"memory-node": {"ENGINE__INDEX_MEMORY_LIMIT": str(16 << 30), "STORE__MAX_TRACES": "2000000"}}
    with Suite(SuiteOptions(data_dir=folder, memory_nodes=1, consensus_nodes=1, settings=settings, log_level="warning")) as suite:
        bare = resident(suite)
        with client_of(suite) as client:
            added = client.add_many(NewMemory(t.text, speaker=t.speaker, said_at=t.said_at, session=t.session) for t in log.turns)
        at = {each.trace_id: place for place, each in enumerate(added)}
        held = len(log.turns)
        for number, size in enumerate(sizes):
            began = time.perf_counter()
            with client_of(suite) as client:
                client.add_many(filler(size - held, number))
            rate = (size - held) / (time.perf_counter() - began)
            held = size
            recall = [f"{_recall(suite, log, at, mode):.1f}" for mode in MODES]
            timed = alternate(suite, [[question.text] * len(MODES) for question in log.questions[:searches]], shared=True)
            taken = [f"{timed[mode].p50:.1f}" for mode in MODES]
            grown = (resident(suite) - bare) / held
            rows.append((f"{held:,}", *recall, *taken, f"{rate:,.0f}", f"{grown:,.0f}", *_restarted(suite, log.questions[0].text)))
            print(*rows[-1], flush=True)
    head = ("memories", *(f"R@10 {mode}" for mode in MODES), *(f"p50 {mode}" for mode in MODES))
    last = ("written", "bytes in memory each", "ready after a restart, s", "first search after it, s")
    note = f"{len(log.questions)} questions to {len(log.turns)} turns of one log; {searches} searches of each mode, alternated."
    return Part(tables=[Table("What a scope costs as it grows", note, (*head, *last), rows)])


def _recall(suite: Suite, log: tasks.Conversation, at: dict[str, int], mode: SearchMode) -> float:
    """R@10; a hit that is not of the log counts as none."""
    with client_of(suite) as client:
        found = client.search_many(Query(question.text, k=DEPTH, mode=mode) for question in log.questions)
    hits = [[at.get(hit.memory.trace_id, -1) for hit in result] for result in found]
    return float(Asked([log]).measure([hits]).recall[10].mean())


def _restarted(suite: Suite, text: str) -> tuple[str, str]:
    """Seconds until the node is ready again, and those of the first search."""
    suite.terminate(_NODE)
    suite.process(_NODE).wait(120.0)
    began = time.perf_counter()
    suite.process(_NODE).start()
    suite.wait_ready(_NODE)
    ready = time.perf_counter()
    with client_of(suite) as client:
        client.search(text)
    return f"{ready - began:.1f}", f"{time.perf_counter() - ready:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(each) for each in text.split(",")], default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--searches", type=int, default=60, help="of each mode, for latency")
    parser.add_argument("--page", type=Path, help="write it there")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        part = measure(Path(folder), given.sizes, given.searches)
    machine = f"{psutil.cpu_count()} cores, shared with whatever else runs, Python {platform.python_version()}"
    if given.page:
        given.page.write_text(as_markdown([part], f"{_ABOVE}\n\nThis run: {machine}, {time.monotonic() - began:.0f} s."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
