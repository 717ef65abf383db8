"""What the write gate costs a trace: code, familiarity, learning and the whole judgement, beside searching the same partition. One core."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ndml.btsp.associative import AssociativeIndex, AssociativeOptions
from ndml.btsp.calibration import GateProfile, shipped
from ndml.btsp.code import CodeOptions, SparseCoder
from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import Kernels
from ndml.btsp.kernels.vectorised import VectorisedKernels
from ndml.btsp.lifecycle import LifecycleOptions
from ndml.btsp.plateau import CalciumTable
from ndml.btsp.state import Dynamics
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.testing.vectors import F32, sentence_like
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.commit import WriteJob
from services.memory_node.familiarity import Familiarity
from services.memory_node.gate import WriteGate
from services.memory_node.index import AdaptiveIndex, IndexOptions, Phase, background_trainer
from services.memory_node.index.fastscan import FastScanIndex
from services.memory_node.index.flat import FlatIndex
from services.memory_node.index.native import single_threaded
from services.memory_node.partition import Partition, Parts, load_partition
from services.memory_node.reader import Reader
from services.memory_node.records import Owner
from services.memory_node.schema import Identity
from services.memory_node.settings import GateSection
from services.memory_node.states import States
from services.memory_node.store import Store
from tests.perf.bench_embed import make_texts
from tests.perf.tables import Part, Row, Sliced, Table, us_each_of
from tests.unit.memory_node import node_harness as harness

MODEL, DIMENSION, BATCH, ASKED = "all-MiniLM-L6-v2", 384, 64, 1024
SINGLES, SLOW = 256, 256
"""Items timed one at a time, and by the numpy kernels."""
TARGET_US = 60.0
OWNER = Owner("t", "u")
Act = Callable[[Any], object]
Subjects = dict[str, tuple[Act, Sliced]]


def cost(rows: int, others: list[int], rounds: int) -> Part:
    """Everything at `rows` traces; code, familiarity and searches at `others` too, where the one overtakes the other."""
    single_threaded()
    part, curve = Part(), []
    for size in sorted({rows, *others}):
        stored, asked = _vectors(size)
        subjects, neurons = _kernels(cpu_kernels(), stored, asked)
        subjects |= _searches(stored, asked)
        batched, single = us_each_of(subjects, BATCH, rounds), us_each_of(_fewer(subjects, SINGLES), 1, rounds)
        curve.append(_curve_row(size, neurons, batched, single))
        if size == rows:
            slow, _ = _kernels(VectorisedKernels(), stored, asked)
            judged, searched = _judgements(stored, asked, rounds)
            by_64 = {**batched, **us_each_of(_fewer(slow, SLOW), BATCH, 1), **judged[BATCH]}
            lines = _cost_rows(by_64, {**single, **judged[1]})
            part.targets.append(_target(rows, batched))
            title = f"Cost of the gate, {rows:,} traces, {neurons:,} neurons"
            part.tables.append(Table(title, _COST.format(searched=searched), _COST_HEAD, lines))
    part.tables.append(Table("Familiarity against search, by size", _CURVE, _CURVE_HEAD, curve))
    return part


_CURVE = """Microseconds a trace for code and familiarity together, and for one nearest neighbour by exact and by quantised search, in
batches of 64 and one at a time. The index has room for twice the traces, as the node builds it: its cost is per neuron and steps
up with each doubling. "Must skip" is the share of traces that familiarity has to spare the fast scan, in batches, to pay for itself."""
_CURVE_HEAD = (
    "traces",
    "neurons",
    "familiarity, 64",
    "exact, 64",
    "fast scan, 64",
    "must skip",
    "familiarity, 1",
    "exact, 1",
    "fast scan, 1",
)


def _curve_row(size: int, neurons: int, batched: dict[str, float], single: dict[str, float]) -> tuple[str, ...]:
    by_64, by_1 = ([f"{us:.0f}" for us in (by[_ENCODE] + by[_FAMILIARITY], by[_EXACT], by[_FAST])] for by in (batched, single))
    share = (batched[_ENCODE] + batched[_FAMILIARITY]) / batched[_FAST]
    return f"{size:,}", f"{neurons:,}", *by_64, f"{share:.0%}", *by_1


_ENCODE, _FAMILIARITY, _LEARN = "code, native", "familiarity, native", "learning, native"
_EXACT, _FAST = "exact search, 1 neighbour", "fast scan, 1 neighbour"
_BY_FAMILIARITY, _BY_SEARCH = "whole judgement", "whole judgement, search alone"


def _target(rows: int, batched: dict[str, float]) -> Row:
    ours = batched[_ENCODE] + batched[_FAMILIARITY]
    return Row(
        f"code and familiarity, {rows:,} traces, batches of 64, one core",
        f"{ours:.1f} us a trace ({batched[_ENCODE]:.1f} + {batched[_FAMILIARITY]:.1f})",
        f"exact search {batched[_EXACT]:.0f} us, fast scan {batched[_FAST]:.0f} us",
        f"<= {TARGET_US:.0f} us",
        ours <= TARGET_US,
    )


_COST = """One core. "Whole judgement" is `services/memory_node/gate.py` on a partition loaded from SQLite: salience, familiarity,
search where it is familiar ({searched:.0%} of these made-up traces; the table of LoCoMo has the share of real ones),
calcium, decision and its reason. "Search alone" is the same without an associative index."""
_COST_HEAD = ("step", "batches of 64, us a trace", "one at a time, us")


def _cost_rows(by_64: dict[str, float], single: dict[str, float]) -> list[tuple[str, ...]]:
    return [(name, f"{us:,.1f}", f"{single[name]:,.1f}" if name in single else "-") for name, us in by_64.items()]


def _vectors(rows: int) -> tuple[F32, F32]:
    """(stored, new ones about the same topics)."""
    made, _ = sentence_like(rows + ASKED, 1, dimension=DIMENSION)
    return made[:rows], made[rows:]


def _keys(first: int, count: int) -> list[bytes]:
    return [row.to_bytes(16, "little") for row in range(first, first + count)]


def _kernels(kernels: Kernels, stored: F32, asked: F32) -> tuple[Subjects, int]:
    """Steps by one set of kernels on an index sized as the node does it, and the number of its neurons."""
    options = AssociativeOptions(CodeOptions.fitting(DIMENSION)).sized(2 * len(stored))
    coder = SparseCoder(options.code, stored.mean(axis=0, dtype=np.float64).astype(np.float32), kernels)
    index, learner = (AssociativeIndex(options, coder, kernels) for _ in range(2))
    index.store(coder.encode(stored), _keys(0, len(stored)))
    codes = coder.encode(asked)

    def learn(part: Any) -> None:
        learner.store(part, _keys(learner.count, len(part)))

    name = kernels.name.replace("vectorised", "numpy")
    steps: Subjects = {f"code, {name}": (coder.encode, asked), f"familiarity, {name}": (index.familiarity, codes)}
    return {**steps, f"learning, {name}": (learn, codes)}, options.neurons


def _searches(stored: F32, asked: F32) -> Subjects:
    options = IndexOptions(DIMENSION)
    flat, fast = FlatIndex(options), FastScanIndex(options, stored[: options.train_sample])
    for index in (flat, fast):
        for at in range(0, len(stored), options.build_chunk):
            index.add(stored[at : at + options.build_chunk])
    fast.maintain()
    return {_EXACT: (lambda part: flat.search(part, 1), asked), _FAST: (lambda part: fast.search(part, 1), asked)}


def _fewer(subjects: Subjects, count: int) -> Subjects:
    return {name: (act, items[:count]) for name, (act, items) in subjects.items()}


def _judgements(stored: F32, asked: F32, rounds: int) -> tuple[dict[int, dict[str, float]], float]:
    """Microseconds of the whole gate by batch size, with an associative index and without; the share of traces it had to search."""
    profile, trainer = shipped(MODEL), background_trainer()
    with TemporaryDirectory() as folder, _store(Path(folder), stored) as reader:
        new = _traces(asked, len(stored))
        try:
            subjects: Subjects = {}
            for name, from_rows in ((_BY_FAMILIARITY, 1), (_BY_SEARCH, len(stored) + 1)):
                partition = _settled(reader, from_rows, trainer)
                subjects[name] = (_judge(profile, partition, reader), new)
            found = {size: us_each_of(_fewer(subjects, ASKED if size > 1 else SINGLES), size, rounds) for size in (BATCH, 1)}
            act = subjects[_BY_FAMILIARITY][0]
            judged = [each for at in range(0, ASKED, BATCH) for each in act(new[at : at + BATCH])]  # type: ignore[attr-defined]
        finally:
            trainer.shutdown()
    return found, sum(each.made.gate.HasField("similarity") for each in judged) / len(judged)


def _judge(profile: GateProfile, partition: Partition, reader: Reader) -> Act:
    gate = WriteGate(profile, CalciumTable(), reader, time.time_ns)
    return lambda traces: gate.judge(OWNER, partition, traces, False)


@contextlib.contextmanager
def _store(folder: Path, vectors: F32) -> Iterator[Reader]:
    """A reader of a real store with these rows."""
    store = Store(harness.settings(folder, dimension=DIMENSION).store, Identity("n0", DIMENSION, MODEL), 10**9)
    store.open()
    traces = _traces(vectors, 0)
    for at in range(0, len(traces), 256):
        store.committer.commit([WriteJob(OWNER, pb.PutAction(traces=traces[at : at + 256]))])
    reader = store.reader()
    try:
        yield reader
    finally:
        reader.close()
        store.close()


def _traces(vectors: F32, first: int) -> list[MemoryTrace]:
    texts = make_texts(first + len(vectors))[first:]
    rows = enumerate(zip(vectors, texts, strict=True), first)
    return [
        harness.trace(i, text, dimension=DIMENSION, session=f"s{i % 7}", embedding={"vector": row.tobytes()}) for i, (row, text) in rows
    ]


def _settled(reader: Reader, familiarity_from: int, trainer: Executor) -> Partition:
    """The owner's partition, its index quantised where it is large enough."""
    options = IndexOptions(DIMENSION)
    parts = Parts(
        DIMENSION,
        lambda: AdaptiveIndex(options, trainer, FastScanIndex),
        States(Dynamics(), LifecycleOptions(), time.time_ns),
        lambda: Familiarity(DIMENSION, familiarity_from, GateSection().familiarity_neurons),
    )
    partition = load_partition(reader, OWNER, parts, 10**9)
    assert partition is not None
    while partition.live >= options.fast_scan_from and partition.index.phase is not Phase.LARGE:
        partition.upkeep()
        time.sleep(0.01)
    return partition
