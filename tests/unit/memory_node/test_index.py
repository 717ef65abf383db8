"""Every vector index against brute force: random histories, ties, filters, tombstones, edges, and recall where it approximates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid, NdmlError
from ndml.testing.vectors import sentence_like
from services.memory_node.index import F32, I64, IndexOptions, Mask, VectorIndex
from services.memory_node.index.fastscan import FastScanIndex, sub_quantizer_count
from services.memory_node.index.flat import FlatIndex
from services.memory_node.index.gpu import FaissFlatIndex, TorchFlatIndex

D = 8
# A refinement of 800 candidates covers every row of these small histories: what is left to differ is rounding to half precision.
SMALL = IndexOptions(dimension=D, k_factor=80, tombstone_floor=4)
HALF, SINGLE = 2e-3, 1e-5


def pool(seed: int = 3) -> F32:
    """A dozen unit vectors [12, D]; rows drawn from it are often equal."""
    vectors = np.random.default_rng(seed).standard_normal((12, D)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


POOL = pool()


def fast_scan(options: IndexOptions) -> VectorIndex:
    return FastScanIndex(options, np.concatenate([pool(seed) for seed in range(8)]))


def torch_flat(options: IndexOptions) -> VectorIndex:
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    return TorchFlatIndex(options, "cpu")


MAKERS: dict[str, tuple[Callable[[IndexOptions], VectorIndex], float]] = {
    "flat": (FlatIndex, SINGLE),
    "flat, tiny blocks": (lambda options: FlatIndex(replace(options, block_bytes=4096)), SINGLE),
    "fast-scan": (fast_scan, HALF),
    "fast-scan, tiny blocks": (lambda options: fast_scan(replace(options, block_bytes=4096)), HALF),
    "torch": (torch_flat, SINGLE),
    "faiss": (lambda options: FaissFlatIndex(options, faiss.IndexFlatIP(D)), SINGLE),
}
every_kind = pytest.mark.parametrize("kind", list(MAKERS))


@dataclass
class Model:
    """What an index must answer, by definition."""

    vectors: list[NDArray[np.float64]] = field(default_factory=list)
    alive: list[bool] = field(default_factory=list)

    def add(self, block: F32) -> None:
        self.vectors += list(block.astype(np.float64))
        self.alive += [True] * len(block)

    def remove(self, rows: I64) -> None:
        for row in rows:
            self.alive[row] = False

    def compact(self) -> list[int]:
        mapping, kept = [], 0
        for alive in self.alive:
            mapping.append(kept if alive else -1)
            kept += alive
        self.vectors = [vector for vector, alive in zip(self.vectors, self.alive, strict=True) if alive]
        self.alive = [True] * kept
        return mapping

    def ranked(self, query: F32, allowed: Mask | None) -> list[tuple[float, int]]:
        """(score, row) of every row that may be returned, best first, the lower row first among equals."""
        hits = [
            (round(float(vector @ query.astype(np.float64)), 6), row)
            for row, vector in enumerate(self.vectors)
            if self.alive[row] and (allowed is None or allowed[row])
        ]
        return sorted(hits, key=lambda hit: (-hit[0], hit[1]))


def check(index: VectorIndex, model: Model, queries: F32, k: int, allowed: Mask | None, tolerance: float) -> None:
    scores, rows = index.search(queries, k, allowed)
    assert scores.shape == rows.shape == (len(queries), k)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    for query, line, who in zip(queries, scores, rows, strict=True):
        expected = model.ranked(query, allowed)
        truth = {row: score for score, row in expected}
        found = min(k, len(expected))
        assert (who[found:] == -1).all() and np.isneginf(line[found:]).all()
        assert len(set(who[:found].tolist())) == found and set(who[:found].tolist()) <= truth.keys()
        assert (np.diff(line[:found]) <= 0).all()
        np.testing.assert_allclose(line[:found], [score for score, _ in expected[:found]], atol=tolerance)
        np.testing.assert_allclose(line[:found], [truth[int(row)] for row in who[:found]], atol=tolerance)
        if isinstance(index, FlatIndex):
            assert who[:found].tolist() == [row for _, row in expected[:found]]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 60)),
        st.tuples(st.just("remove"), st.integers(1, 9)),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("search"), st.integers(0, 12)),
        st.tuples(st.just("filter"), st.integers(1, 10)),
    ),
    min_size=4,
    max_size=14,
)


@every_kind
@settings(max_examples=25, deadline=None)
@given(history=steps, seed=st.integers(0, 2**32 - 1))
def test_random_histories_equal_brute_force(kind: str, history: list[tuple[str, int]], seed: int) -> None:
    make, tolerance = MAKERS[kind]
    index, model, rng = make(SMALL), Model(), np.random.default_rng(seed)
    for step, number in history:
        if step == "add":
            block = POOL[rng.integers(0, len(POOL), number)]
            index.add(block)
            model.add(block)
        elif step == "remove":
            rows = np.flatnonzero(rng.random(len(index)) < number / 20)
            rows = np.concatenate([rows, rows[:2]])  # naming a row twice is no error
            index.remove(rows)
            model.remove(rows)
        elif step == "compact":
            assert index.compact().tolist() == model.compact()
        elif step == "search":
            check(index, model, POOL[rng.integers(0, len(POOL), 3)], number, None, tolerance)
        else:
            allowed = rng.random(len(index)) < rng.random() ** 2
            check(index, model, POOL[rng.integers(0, len(POOL), 70)], number, allowed, tolerance)
        index.maintain()
        assert len(index) == len(model.alive) and index.live == sum(model.alive)
        dead = len(index) - index.live
        assert index.needs_compaction == (dead >= 4 and dead >= 0.25 * len(index))
    if len(index):
        np.testing.assert_allclose(index.reconstruct(np.arange(len(index))), np.array(model.vectors), atol=tolerance)


@every_kind
def test_nothing_in_nothing_out(kind: str) -> None:
    index = MAKERS[kind][0](SMALL)
    index.add(np.empty((0, D), np.float32))
    index.remove(np.empty(0, np.int64))
    for batch, k in ((0, 5), (2, 0), (2, 5)):
        scores, rows = index.search(POOL[:batch], k)
        assert scores.shape == rows.shape == (batch, k)
        assert (rows == -1).all() and np.isneginf(scores).all()
    assert index.reconstruct(np.empty(0, np.int64)).shape == (0, D)
    assert index.compact().shape == (0,) and not index.needs_compaction
    index.add(POOL)
    index.remove(np.arange(len(POOL)))
    assert (index.search(POOL[:2], 3)[1] == -1).all()


BAD: dict[str, tuple[Callable[[VectorIndex], object], type[NdmlError], str]] = {
    "short vectors": (lambda i: i.add(np.ones((2, D - 1), np.float32)), EmbeddingDimensionMismatch, "embedding"),
    "one vector": (lambda i: i.add(np.ones(D, np.float32)), EmbeddingDimensionMismatch, "embedding"),
    "nan": (lambda i: i.add(np.full((1, D), np.nan, np.float32)), EmbeddingNotFinite, "embedding"),
    "long query": (lambda i: i.search(np.ones((1, D + 1), np.float32), 3), EmbeddingDimensionMismatch, "embedding"),
    "negative k": (lambda i: i.search(POOL[:1], -1), FieldInvalid, "k"),
    "short mask": (lambda i: i.search(POOL[:1], 3, np.ones(5, np.bool_)), FieldInvalid, "allowed"),
    "row too high": (lambda i: i.remove(np.array([0, len(POOL)])), FieldInvalid, "rows"),
    "negative row": (lambda i: i.remove(np.array([-1])), FieldInvalid, "rows"),
    "no such row": (lambda i: i.reconstruct(np.array([len(POOL)])), FieldInvalid, "rows"),
}


@every_kind
@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_refused_and_changes_nothing(kind: str, case: str) -> None:
    act, error, where = BAD[case]
    index = MAKERS[kind][0](SMALL)
    index.add(POOL)
    with pytest.raises(error) as caught:
        act(index)
    assert [violation.field for violation in caught.value.violations] == [where]
    assert (len(index), index.live) == (len(POOL), len(POOL))


@pytest.mark.parametrize(
    "change", [{"dimension": 0}, {"growth": 1.0}, {"k_factor_max": 5}, {"tombstone_share": 0.0}, {"fast_scan_from": 8}]
)
def test_senseless_options_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        IndexOptions(**{"dimension": D, **change})
    assert caught.value.violations[0].field == next(iter(change))


def test_the_slab_overshoots_by_a_third_at_most() -> None:
    index = FlatIndex(SMALL)
    for _ in range(200):
        index.add(POOL)
        assert index.nbytes <= 1.51 * len(index) * (4 * D + 1)


@pytest.mark.parametrize(("dimension", "count"), [(384, 96), (10, 5), (7, 7)])
def test_any_dimension_can_be_quantised(dimension: int, count: int) -> None:
    assert sub_quantizer_count(dimension) == count
    vectors, queries = sentence_like(500, 20, dimension=dimension)
    index = FastScanIndex(IndexOptions(dimension), vectors)
    index.add(vectors)
    assert recall(index, vectors, queries) >= 0.99


def recall(index: VectorIndex, vectors: F32, queries: F32, allowed: Mask | None = None, k: int = 10) -> float:
    """Share of the k hits that are as similar as the true k-th, but for the rounding of half precision."""
    scores = queries @ vectors.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    worst = np.partition(scores, -k, axis=1)[:, -k]
    rows = index.search(queries, k, allowed)[1]
    assert all(len(set(line)) == k for line in rows.tolist())
    return float((np.take_along_axis(scores, rows, axis=1) >= worst[:, None] - 1e-5).mean())


@pytest.fixture(scope="module")
def large() -> tuple[FastScanIndex, F32, F32]:
    """10k rows on which ten candidates a hit give recall .989: the index has to find out that it needs more."""
    vectors, queries = sentence_like(10_000, 256)
    index = FastScanIndex(IndexOptions(384), vectors[:4096])
    for start in range(0, 10_000, 2_500):
        index.add(vectors[start : start + 2_500])
    return index, vectors, queries


def test_recall_at_10k(large: tuple[FastScanIndex, F32, F32]) -> None:
    index, vectors, queries = large
    assert min(recall(index, vectors, queries, k=k) for k in (1, 10, 40)) >= 0.99
    assert 100 < index.depth <= 800
    assert index.nbytes <= 0.75 * vectors.nbytes


def test_rows_past_the_sure_ones_cost_no_recall_of_those(large: tuple[FastScanIndex, F32, F32]) -> None:
    index, vectors, queries = large
    true = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    scores, rows = index.search(queries, 64, sure=10)
    assert np.mean([len(np.intersect1d(found, ten)) for found, ten in zip(rows[:, :10], true, strict=True)]) >= 9.9
    assert rows.shape == (len(queries), 64) and (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("share", [0.97, 0.5, 0.1, 0.01, 0.0015])
def test_a_filter_costs_no_recall(large: tuple[FastScanIndex, F32, F32], share: float) -> None:
    index, vectors, queries = large
    allowed = np.random.default_rng(1).random(len(vectors)) < share
    assert recall(index, vectors, queries, allowed) >= 0.99
    one_by_one = [recall(index, vectors, queries[i : i + 1], allowed) for i in range(0, 256, 8)]
    assert np.mean(one_by_one) >= 0.99


@pytest.mark.parametrize("share", [0.999, 0.99, 0.9, 0.5, 0.05])
def test_a_filter_against_the_query_costs_no_recall(large: tuple[FastScanIndex, F32, F32], share: float) -> None:
    index, vectors, queries = large
    found = []
    for query in queries[:32]:
        similarity = vectors @ query
        found.append(recall(index, vectors, query[None], similarity < np.quantile(similarity, share)))
    assert np.mean(found) >= 0.98  # these hits stand a rounding apart


def test_tombstones_and_compaction_cost_no_recall() -> None:
    vectors, queries = sentence_like(6_000, 128, seed=5)
    index = FastScanIndex(IndexOptions(384), vectors[:4096])
    index.add(vectors)
    dead = np.random.default_rng(2).random(6_000) < 0.3
    dead[index.search(queries[:20], 50)[1].reshape(-1)] = True  # whole neighbourhoods die, as when a memory is rewritten often
    index.remove(np.flatnonzero(dead))
    assert recall(index, vectors, queries, ~dead) >= 0.99
    assert index.needs_compaction
    mapping = index.compact()
    assert (mapping[dead] == -1).all() and mapping[~dead].tolist() == list(range(index.live))
    assert recall(index, vectors[~dead], queries) >= 0.99
    index.add(vectors[dead])
    assert recall(index, np.concatenate([vectors[~dead], vectors[dead]]), queries) >= 0.99
