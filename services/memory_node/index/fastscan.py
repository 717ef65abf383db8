"""Quantised index for large partitions: a 4-bit product-quantised fast scan proposes candidates, half-precision vectors refine them.

Memory per row: dimension / 8 bytes of codes and 2 x dimension of half floats, .53 of float32.
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np

from services.memory_node.index.depth import TEN, Depth
from services.memory_node.index.exact import exact_search, largest, padded, padding
from services.memory_node.index.native import Refining, selecting, selector, single_threaded
from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import F32, I64, Mask, checked_k, checked_queries, checked_rows, checked_vectors
from services.memory_node.index.rows import LiveRows

# Measured at 384 dimensions, in microseconds a row; only their ratios matter, and all of them scale with the dimension.
SCAN_US = 0.0025  # quantised scan, per row of the partition and query
SKIP_US = 0.0022  # exact scan, per row that a selector skips and query
REFINE_US = 0.2  # half-float inner product of a scattered row, per query
DECODE_US = 0.5  # half to single precision, once a batch
DOT_US = 0.01  # inner product by BLAS with a decoded row, per query

SIGMAS = 3.0
"""Surplus of candidates under a filter, in standard deviations of the rank at which a random filter lets the tenth row pass."""

FETCH_STEP = 4
"""When a filter is at odds with the query and its rows come late, look this many times deeper."""

GROWN = 1.5
"""Growth after which the depth is measured anew."""

OWED_PROBES = 64
"""Probes to measure it with: 640 positions, enough for a first estimate of a .995 share."""

PROBES_PER_TURN = 8
"""Probes per `maintain`: some 4 ms at 100k rows, so that upkeep never stalls the worker."""


def sub_quantizer_count(dimension: int) -> int:
    """Sub-spaces of four dimensions where that divides, else of two or one (three make FAISS's table lookup slow)."""
    width = next(width for width in (4, 2, 1) if dimension % width == 0)
    return dimension // width


def trained_scan(options: IndexOptions, sample: F32) -> Any:
    """FAISS's fast-scan index, empty, its quantiser learned from `sample` [m, d], m >= 16."""
    scan: Any = faiss.IndexPQFastScan(options.dimension, sub_quantizer_count(options.dimension), 4, faiss.METRIC_INNER_PRODUCT)
    scan.pq.cp.max_points_per_centroid = options.train_sample // 16
    scan.pq.cp.min_points_per_centroid = 1  # only silences a warning on stderr about small samples
    scan.train(sample)
    return scan


class FastScanIndex:
    """VectorIndex that recalls `recall_target` of the exact answer. Built from a training sample, empty at first."""

    kind = "pq4fs+refine"

    def __init__(self, options: IndexOptions, sample: F32) -> None:
        """Learn the quantiser from `sample` [m, d], m >= 16."""
        single_threaded()
        self._options = options
        self._scan = trained_scan(options, sample)
        self._half: Any = faiss.IndexScalarQuantizer(options.dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._both: Any = faiss.IndexRefine(self._scan, self._half)
        self._refining = Refining()
        self._rows = LiveRows(options)
        self._reserved = 0
        self._depth = Depth(options)
        self._measured_at = 0
        self._owed = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def live(self) -> int:
        return self._rows.live

    @property
    def nbytes(self) -> int:
        scan_row = int(self._scan.M2) // 2
        return self._reserved * (2 * self._options.dimension + scan_row) + self._rows.nbytes

    @property
    def needs_compaction(self) -> bool:
        return self._rows.needs_compaction

    @property
    def depth(self) -> int:
        """Candidates refined for ten hits, as measured so far."""
        return self._depth.for_ten

    def add(self, vectors: F32) -> None:
        block = checked_vectors(vectors, self._options.dimension)
        if not len(block):
            return
        single_threaded()
        self._both.add(block)
        self._rows.extend(len(block))
        if len(self) > self._reserved:  # FAISS doubles its arrays; it does not tell their capacity
            self._reserved = max(len(self), 2 * self._reserved)
        if len(self) >= GROWN * self._measured_at:
            self._measured_at = len(self)
            self._owed = OWED_PROBES
            self._depth.forget()

    def remove(self, rows: I64) -> None:
        self._rows.remove(rows)

    def search(self, queries: F32, k: int, allowed: Mask | None = None, sure: int = 0) -> tuple[F32, I64]:
        batch = checked_queries(queries, self._options.dimension)
        mask, count = self._rows.select(allowed)
        found = min(checked_k(k), count)
        if not found or not len(batch):
            return padding(len(batch), k)
        single_threaded()
        self._measure(batch)
        hits = self._search_all(batch, found, min(sure or found, found)) if mask is None else self._search_masked(batch, found, mask, count)
        return padded(*hits, k)

    def reconstruct(self, rows: I64) -> F32:
        return self._decode(checked_rows(rows, len(self)))

    def compact(self) -> I64:
        single_threaded()
        dead = selector(~self._rows.mask)
        self._scan.remove_ids(dead)
        self._half.remove_ids(dead)
        self._both.ntotal = self._half.ntotal
        return self._rows.compact()

    def maintain(self) -> None:
        """Measure the depth after growth, a few probes at a time."""
        if self._owed and len(self):
            single_threaded()
            self._probe_rows(PROBES_PER_TURN)

    def close(self) -> None:
        """Nothing runs in the background."""

    def _search_all(self, batch: F32, k: int, sure: int) -> tuple[F32, I64]:
        scores, rows = self._refined(batch, k, min(max(self._depth.candidates(sure), k), len(self)))
        if min(rows[:, -1].tolist()) < 0:  # the scan passes over rows at the very bottom of its scale: it shows in tiny partitions
            short = np.flatnonzero(rows[:, -1] < 0)
            scores[short], rows[short] = self._search_exact(batch[short], k, self._rows.mask, len(self))
        return scores, rows

    def _refined(self, batch: F32, k: int, fetch: int) -> tuple[F32, I64]:
        """The best `k` of the scan's first `fetch` candidates, k <= fetch <= len."""
        scores, rows = self._both.search(batch, k, params=self._refining.of(k, fetch))
        return scores, rows

    def _search_masked(self, batch: F32, k: int, mask: Mask, count: int) -> tuple[F32, I64]:
        """Look deeper until a filter costs no recall, or until comparing every allowed row is cheaper.

        Ends, because `fetch` grows by FETCH_STEP each round and the exact way is the cheaper one at the latest when fetch >= count.
        """
        scores, rows = padding(len(batch), k)
        fetch = self._first_fetch(k, count / len(self))
        pending = np.arange(len(batch))
        while pending.size and fetch < count and self._scan_pays(len(pending), fetch, count):
            missing = []
            step = max(1, self._options.block_bytes // (12 * fetch))
            for start in range(0, len(pending), step):
                lines = pending[start : start + step]
                near, who = self._refined(batch[lines], fetch, fetch)
                passed = mask[who] & (who >= 0)
                ranks = np.cumsum(passed, axis=1, dtype=np.int64)
                deep = self._deep_enough(ranks, k)
                chosen = (passed & (ranks <= k))[deep]
                scores[lines[deep]] = near[deep][chosen].reshape(-1, k)
                rows[lines[deep]] = who[deep][chosen].reshape(-1, k)
                missing.append(lines[~deep])
            pending = np.concatenate(missing)
            fetch *= FETCH_STEP
        if pending.size:
            scores[pending], rows[pending] = self._search_exact(batch[pending], k, mask, count)
        return scores, rows

    def _first_fetch(self, k: int, share: float) -> int:
        """Depth at which a filter that lets `share` of the rows pass at random leaves nearly every query deep enough."""
        last = max(k, TEN)
        rank = (last + SIGMAS * math.sqrt(last * (1 - share))) / share
        return math.ceil(rank * self._depth.candidates(k) / last)

    def _deep_enough(self, ranks: I64, k: int) -> Mask:
        """Which lines of `ranks` [b, fetch] (candidates passed so far, best first) hold the true `k`.

        The scan must be deep in proportion to the rank at which the last hit stands, rejected rows included: further down rows stand
        closer, so a filter that rejects what the query is nearest to needs more depth than its share tells.
        """
        last = max(k, TEN)
        reached = 1 + np.argmax(ranks >= last, axis=1)
        deep: Mask = (ranks[:, -1] >= last) & (reached * self._depth.candidates(k) <= last * ranks.shape[1])
        return deep

    def _scan_pays(self, queries: int, fetch: int, count: int) -> bool:
        scan = queries * (SCAN_US * len(self) + REFINE_US * fetch)
        return scan < min(self._decoding_us(queries, count), self._selecting_us(queries, count))

    def _decoding_us(self, queries: int, count: int) -> float:
        return count * (DECODE_US + DOT_US * queries)

    def _selecting_us(self, queries: int, count: int) -> float:
        return queries * (SKIP_US * len(self) + REFINE_US * count)

    def _search_exact(self, batch: F32, k: int, mask: Mask, count: int) -> tuple[F32, I64]:
        """The best `k` of all `count` rows that the mask lets through, k <= count."""
        if self._selecting_us(len(batch), count) < self._decoding_us(len(batch), count):
            scores, rows = self._half.search(batch, k, params=selecting(mask))
            return scores, rows
        chosen = np.flatnonzero(mask)
        step = max(1, self._options.block_bytes // (4 * self._options.dimension))
        scores, rows = padding(len(batch), k)
        for start in range(0, len(chosen), step):
            block = chosen[start : start + step]
            near, places = exact_search(self._decode(block), batch, min(k, len(block)), self._options.block_bytes)
            merged, columns = largest(np.concatenate([scores, near], axis=1), k)
            rows = np.take_along_axis(np.concatenate([rows, block[places]], axis=1), columns, axis=1)
            scores = merged
        return scores, rows

    def _decode(self, rows: I64) -> F32:
        if not len(rows):
            return np.empty((0, self._options.dimension), dtype=np.float32)
        codes = faiss.rev_swig_ptr(self._half.codes.data(), len(self) * self._half.code_size).reshape(len(self), -1)
        decoded: F32 = self._half.sa_decode(codes[rows])
        return decoded

    def _measure(self, batch: F32) -> None:
        while self._owed:
            self._probe_rows(PROBES_PER_TURN)
        if self._depth.due(len(batch)):
            self._probe(batch[:1])

    def _probe_rows(self, count: int) -> None:
        """Pay `count` owed probes with rows of the index as queries: they need the same depth as real questions (measured on both)."""
        count = min(count, self._owed)
        rows = np.linspace(0, len(self) - 1, num=OWED_PROBES, dtype=np.int64)[self._owed - count : self._owed]
        self._probe(self._decode(rows))
        self._owed -= count

    def _probe(self, queries: F32) -> None:
        fetch = min(self._depth.look_ahead, len(self))
        _, found = self._refined(queries, min(TEN, fetch), fetch)
        _, ranked = self._scan.search(queries, fetch)
        self._depth.record(ranked, found)
