"""The swap from exact to quantised while the worker goes on: real threads, gated so that every phase is met."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from ndml.testing.vectors import sentence_like
from services.memory_node.index import F32, AdaptiveIndex, IndexOptions, IndexState, Phase, VectorIndex, background_trainer, make_index
from services.memory_node.index.fastscan import FastScanIndex

D = 16
OPTIONS = IndexOptions(dimension=D, fast_scan_from=64, train_sample=64, k_factor=80, catch_up_rows=16, build_chunk=8, tombstone_floor=8)
WAIT_S = 60.0


@dataclass
class Gate:
    """Builds fast-scan indexes, but only while it is open; `fail` makes it raise instead."""

    opened: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    built: int = 0
    fail: Exception | None = None

    def __call__(self, options: IndexOptions, sample: F32) -> VectorIndex:
        self.entered.set()
        assert self.opened.wait(WAIT_S)
        self.built += 1
        if self.fail:
            raise self.fail
        return FastScanIndex(options, sample)


@pytest.fixture
def trainer() -> Iterator[ThreadPoolExecutor]:
    with background_trainer() as pool:
        yield pool


def drained(trainer: ThreadPoolExecutor) -> None:
    """Wait until the trainer has done what it was given."""
    trainer.submit(int).result(WAIT_S)


def polled(index: AdaptiveIndex, phase: Phase, trainer: ThreadPoolExecutor) -> IndexState:
    """Poll, at most 100 times, until `phase`."""
    for _ in range(100):
        state = index.poll()
        if state.phase is phase:
            return state
        drained(trainer)
    raise AssertionError(f"stuck in {state}")


def random_units(rng: np.random.Generator, rows: int) -> F32:
    vectors = rng.standard_normal((rows, D)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def agrees(index: AdaptiveIndex, vectors: F32, alive: np.ndarray, queries: F32, k: int = 5) -> None:
    """The index says what brute force says, to half precision."""
    assert (len(index), index.live) == (len(vectors), int(alive.sum()))
    truth = queries @ vectors.T
    truth[:, ~alive] = -np.inf
    scores, rows = index.search(queries, k)
    np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :k], atol=2e-3)
    np.testing.assert_allclose(scores, np.take_along_axis(truth, rows, axis=1), atol=2e-3)


def test_writes_and_searches_go_on_through_the_swap(trainer: ThreadPoolExecutor) -> None:
    gate = Gate()
    index, rng = AdaptiveIndex(OPTIONS, trainer, gate), np.random.default_rng(0)
    vectors, alive = np.empty((0, D), np.float32), np.empty(0, np.bool_)
    phases: list[Phase] = []
    swaps = 0
    for turn in range(120):
        fresh = random_units(rng, int(rng.integers(0, 9)))
        index.add(fresh)
        vectors, alive = np.concatenate([vectors, fresh]), np.concatenate([alive, np.ones(len(fresh), np.bool_)])
        if turn % 3 == 0 and len(vectors):
            gone = rng.integers(0, len(vectors), 2)
            index.remove(gone)
            alive[gone] = False
        if turn == 60:
            gate.opened.set()
            drained(trainer)
        swaps += index.poll().swapped
        phases.append(index.phase)
        if alive.sum() >= 5:
            agrees(index, vectors, alive, random_units(rng, 3))
        assert index.nbytes <= 4 * 2.5 * D * max(len(vectors), 64)
    assert list(dict.fromkeys(phases)) == list(Phase)  # each phase met, in order, none twice
    assert phases[59] is Phase.TRAINING and phases.count(Phase.CATCHING_UP) >= 2
    assert (swaps, gate.built, index.kind) == (1, 1, "pq4fs+refine")


@pytest.mark.parametrize("seed", range(5))
def test_ungated_schedules_agree_with_brute_force(trainer: ThreadPoolExecutor, seed: int) -> None:
    index, rng = AdaptiveIndex(OPTIONS, trainer, FastScanIndex), np.random.default_rng(seed)
    vectors, alive = np.empty((0, D), np.float32), np.empty(0, np.bool_)
    for _ in range(80):
        fresh = random_units(rng, int(rng.integers(1, 12)))
        index.add(fresh)
        vectors, alive = np.concatenate([vectors, fresh]), np.concatenate([alive, np.ones(len(fresh), np.bool_)])
        gone = np.flatnonzero(rng.random(len(vectors)) < 0.01)
        index.remove(gone)
        alive[gone] = False
        index.poll()
        if index.needs_compaction:
            mapping = index.compact()
            assert (mapping >= 0).tolist() == alive.tolist()
            vectors, alive = vectors[alive], alive[alive]
        if alive.sum() >= 5:
            agrees(index, vectors, alive, random_units(rng, 2))
    polled(index, Phase.LARGE, trainer)
    agrees(index, vectors, alive, random_units(rng, 20))


def test_a_failed_training_is_told_and_the_exact_index_stays(trainer: ThreadPoolExecutor) -> None:
    gate = Gate(fail=ArithmeticError("no centroids"))
    gate.opened.set()
    index, rng = AdaptiveIndex(OPTIONS, trainer, gate), np.random.default_rng(0)
    vectors = random_units(rng, 1024)
    errors, attempts_at = [], []
    for rows in range(32, 1025, 32):
        index.add(vectors[rows - 32 : rows])
        for _ in range(3):
            before = gate.built
            errors += [state.error for state in [index.poll()] if state.error]
            drained(trainer)
            attempts_at += [rows] * (gate.built - before)
        agrees(index, vectors[:rows], np.ones(rows, np.bool_), vectors[:2])
    assert attempts_at == [64, 128, 256]  # waits until it has doubled, gives up after three
    assert [str(error) for error in errors] == ["no centroids"] * 3
    assert (index.phase, index.kind) == (Phase.FLAT, "flat")


def test_compaction_during_training_starts_over(trainer: ThreadPoolExecutor) -> None:
    gate = Gate()
    index, vectors = AdaptiveIndex(OPTIONS, trainer, gate), random_units(np.random.default_rng(0), 200)
    index.add(vectors)
    assert index.poll().phase is Phase.TRAINING
    assert gate.entered.wait(WAIT_S)
    index.remove(np.arange(0, 200, 2))
    assert index.compact()[1::2].tolist() == list(range(100))
    assert index.phase is Phase.FLAT
    gate.opened.set()
    polled(index, Phase.LARGE, trainer)
    agrees(index, vectors[1::2], np.ones(100, np.bool_), vectors[:9])
    assert gate.built == 2


def test_close_lets_go_of_a_training_under_way(trainer: ThreadPoolExecutor) -> None:
    gate = Gate()
    index, waiting = AdaptiveIndex(OPTIONS, trainer, gate), AdaptiveIndex(OPTIONS, trainer, gate)
    for each in (index, waiting):
        each.add(random_units(np.random.default_rng(0), 100))
        each.poll()
    assert gate.entered.wait(WAIT_S)
    index.close()
    waiting.close()
    gate.opened.set()
    drained(trainer)
    assert gate.built == 1  # the first was past stopping and is thrown away, the second never began
    assert index.phase is waiting.phase is Phase.FLAT


def test_a_partition_of_real_size_becomes_quantised_and_small(trainer: ThreadPoolExecutor) -> None:
    vectors, queries = sentence_like(6_000, 64)
    index = make_index(IndexOptions(384), trainer)
    index.add(vectors[:5_000])
    polled(index, Phase.TRAINING, trainer)
    index.add(vectors[5_000:])
    polled(index, Phase.LARGE, trainer)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    rows = index.search(queries, 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, rows, strict=True)]) >= 0.99
    if index.kind == "pq4fs+refine":
        assert index.nbytes <= 1.1 * vectors.nbytes


def test_an_index_loads_no_grpc_and_torch_only_beside_a_gpu() -> None:
    code = (
        "import sys, services.memory_node.index as i; from concurrent.futures import ThreadPoolExecutor as P;"
        "i.make_index(i.IndexOptions(8), P(1)); from services.memory_node.index.gpu import NVIDIA_DEVICES as N;"
        "unwanted = {'grpc', 'transformers'} | ({'torch'} if not any(n.exists() for n in N) else set());"
        "print(sorted(unwanted & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, timeout=WAIT_S, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
