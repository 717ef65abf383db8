"""What the ranking costs with thousands of memories in one scope: latency by mode, time by stage, bytes of a trace, rate of writing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import psutil

from ndml.client import NdmlClient, NewMemory, SearchMode
from ndml.language.terms import terms
from ndml.testing import Suite, SuiteOptions
from tests.perf.tables import Part, Row, Table
from tests.quality.recall import tasks
from tests.quality.recall.sets import Question, Turn

USER = "costs"
MODES = (SearchMode.DENSE, SearchMode.FAST, SearchMode.FULL)
LIMITS = {SearchMode.FULL: 3.0, SearchMode.FAST: 1.3}
"""p50 at most so many times that of dense."""
STAGES = ("embed_ms", "queue_ms", "index_ms", "lexical_ms", "late_ms", "fuse_ms", "fetch_ms", "total_ms")
_TURNS_OF_A_STORE = 600  # at least
_WRITE_CHUNK, _WRITE_ROUNDS = 128, 4
_SAMPLE = 1000  # traces that are read back for their bytes
_CHUNK_S = 300.0


@dataclass(slots=True)
class Timed:
    """Milliseconds of each search of a mode, as the client saw them and by the server's stages."""

    client: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    @property
    def p50(self) -> float:
        return median(self.client)

    def row(self, name: str, dense: Timed) -> tuple[str, ...]:
        tail = float(np.quantile(self.client, 0.99))
        found = (f"{self.p50:.2f}", f"{tail:.2f}", f"{self.p50 / dense.p50:.2f}")
        return (name, *found, *(f"{median(values):.2f}" for values in self.stages.values()))


def options(folder: Path, word_vectors: bool | None = None) -> SuiteOptions:
    """One memory node, so that what it holds is what the scope costs. None: word vectors as the suite ships."""
    settings: Any = {} if word_vectors is None else {"gateway": {"EMBEDDING__WORD_VECTORS": str(word_vectors).lower()}}
    return SuiteOptions(data_dir=folder, memory_nodes=1, consensus_nodes=1, settings=settings, log_level="warning")


def measure(folder: Path, rows: int, searches: int) -> Part:
    """`rows` memories in one scope, `searches` of each mode. Raises NdmlError, SuiteError."""
    stores = tasks.stores(1 + rows // _TURNS_OF_A_STORE)
    turns = [turn for store in stores for turn in store.turns][:rows]
    questions = [question for at in range(len(stores[0].questions)) for store in stores for question in store.questions[at : at + 1]]
    part = Part()
    with Suite(options(folder / "full")) as suite:
        before = resident(suite)
        _add(suite, turns)
        growth = (resident(suite) - before) / len(turns)
        _latencies(suite, questions, searches, part)
        part.tables.append(_bytes(suite, turns, growth))
    part.tables.append(_writing(folder, turns))
    return part


def client_of(suite: Suite) -> NdmlClient:
    return NdmlClient(suite.grpc_address, user=USER, timeout_s=_CHUNK_S)


def _add(suite: Suite, turns: Sequence[Turn]) -> float:
    """Seconds that it took."""
    new = [NewMemory(turn.text, speaker=turn.speaker, said_at=turn.said_at, session=turn.session) for turn in turns]
    began = time.perf_counter()
    with client_of(suite) as client:
        client.add_many(new)
    return time.perf_counter() - began


def _latencies(suite: Suite, questions: Sequence[Question], searches: int, part: Part) -> None:
    texts = [question.text for question in questions]
    new = alternate(suite, [[text] for text in texts[: len(MODES) * searches]], shared=False)
    # Asked a second time, the vectors of a query are cached: what is left is the search itself.
    again = alternate(suite, [[text] * len(MODES) for text in texts[:searches]], shared=True)
    for mode, most in LIMITS.items():
        ratio, with_text = (timed[mode].p50 / timed[SearchMode.DENSE].p50 for timed in (again, new))
        dense = f"dense {again[SearchMode.DENSE].p50:.2f} ms; with the query's embedding {with_text:.2f} x"
        target = f"p50 <= {most:g} x dense"
        part.targets.append(Row(f"search, {mode}", f"p50 {again[mode].p50:.2f} ms, {ratio:.2f} x", dense, target, ratio <= most))
    head = ("mode", "p50", "p99", "x dense", *(stage.removesuffix("_ms") for stage in STAGES))
    for title, timed in (("Latency, the query's vectors cached", again), ("Latency, every query new", new)):
        note = f"""Milliseconds with {searches} searches of each mode, alternated, one caller, client included; stages are medians as the
server reports them (`SearchStats.timings`): candidates by similarity (`index`) and by words (`lexical`), late interaction, one score
out of all signals (`fuse`), reading the hits (`fetch`), the whole inside the gateway (`total`)."""
        part.tables.append(Table(title, note, head, [timed[mode].row(mode, timed[SearchMode.DENSE]) for mode in MODES]))


def alternate(suite: Suite, asked: Sequence[Sequence[str]], *, shared: bool) -> dict[SearchMode, Timed]:
    """Each group of texts in modes that take turns; `shared`: a group is one text for every mode, and embedded beforehand."""
    found = {mode: Timed() for mode in MODES}
    with client_of(suite) as client:
        for mode in MODES:
            client.search("what is there to warm up?", mode=mode)
        for number, texts in enumerate(asked):
            if shared:
                for mode in MODES:
                    client.search(texts[0], mode=mode)
            for step, text in enumerate(texts):
                mode = MODES[(number + step) % len(MODES)]
                began = time.perf_counter()
                result = client.search(text, mode=mode)
                found[mode].client.append(1e3 * (time.perf_counter() - began))
                for stage in STAGES:
                    found[mode].stages[stage].append(getattr(result.stats, stage))
    return found


def resident(suite: Suite) -> int:
    """Bytes of the memory node in memory."""
    return sum(int(psutil.Process(suite.process(name).pid).memory_info().rss) for name in suite.names if name.startswith("memory-node"))


def _bytes(suite: Suite, turns: Sequence[Turn], growth: float) -> Table:
    with client_of(suite) as client:
        sample = [memory.embedding for memory in islice(client.export(include_embedding=True), _SAMPLE)]
        details = {
            name: value for row in client.cluster_status().services for name, value in row.details.items() if "memory" in row.service
        }
    kept = [each for each in sample if each is not None]
    postings = mean(len(set(terms(turn.text))) for turn in turns[:_SAMPLE])
    rows = [
        ("similarity: the vector", f"{mean(len(each.vector) for each in kept):,.0f}"),
        ("late interaction: word vectors", f"{mean(len(each.word_vectors) for each in kept):,.0f}"),
        ("words: terms to list it under", f"{postings:.1f} terms"),
        *(
            (f"{name} of the node's status", f"{int(value) / len(turns):,.0f}")
            for name, value in details.items()
            if name.endswith("_bytes")
        ),
        ("the memory node's growth in memory", f"{growth:,.0f}"),
    ]
    note = f"""Of a trace, with {len(turns):,} in the scope. The first two as `ExportMemories` gives them; what the node's process grew by
holds all signals, states and its allocator's slack."""
    return Table("Memory", note, ("what", "bytes"), rows)


def _writing(folder: Path, turns: Sequence[Turn]) -> Table:
    """Texts a second with and without word vectors, each in a suite of its own."""
    ways = {"with word vectors": True, "without": False}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for name, word_vectors in ways.items():
        with Suite(options(folder / name.replace(" ", "-"), word_vectors)) as suite:
            _add(suite, turns[:_WRITE_CHUNK])
            for number in range(1, 1 + _WRITE_ROUNDS):
                part = turns[number * _WRITE_CHUNK : (number + 1) * _WRITE_CHUNK]
                rates[name].append(len(part) / _add(suite, part))
    note = f"""Memories a second by `BatchAddMemories`, texts embedded by the llm service, acknowledged on disk and findable: medians of
{_WRITE_ROUNDS} rounds of {_WRITE_CHUNK}, each setting in a suite of its own."""
    return Table("Writing", note, ("word vectors", "memories/s"), [(name, f"{median(found):,.0f}") for name, found in rates.items()])
