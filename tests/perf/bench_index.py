"""Index of the memory node against exact search and against bare FAISS, same vectors, same process, interleaved rounds.

    python -m tests.perf.bench_index [--rows 500 2000 10000 100000] [--million] [--rounds 5] [--json FILE] [--markdown FILE]

flat: FlatIndex, exact, the reference for recall. bare: FAISS's PQ fast scan with half-precision refinement of ten candidates a hit,
called directly: the reference for time. fast-scan: FastScanIndex, which also measures how deep it must look, keeps tombstones and
filters. Vectors: `ndml.testing.vectors.sentence_like`, somewhat harder than real sentence embeddings (calibration there).
One thread. Medians over rounds; run it on a quiet machine. `1 %` is one query filtered to a random hundredth of the rows.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and FAISS are imported

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ndml.testing.vectors import F32, sentence_like
from services.memory_node.index import I64, IndexOptions, VectorIndex
from services.memory_node.index.fastscan import FastScanIndex, trained_scan
from services.memory_node.index.flat import FlatIndex
from services.memory_node.index.native import Refining, single_threaded

D, K, BATCH, QUERIES = 384, 10, 64, 256
OPTIONS = IndexOptions(D)
ADD_BLOCK = 64
Search = Callable[[F32], tuple[F32, I64]]


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    rows: int
    index: str
    one_us: float
    batch_qps: float
    recall_at_10: float
    add_us: float | None
    bytes_per_row: float
    one_us_filtered: float | None
    depth: int | None


class Bare:
    """FAISS called directly."""

    def __init__(self, vectors: F32) -> None:
        scan = trained_scan(OPTIONS, vectors[: OPTIONS.train_sample])
        half: Any = faiss.IndexScalarQuantizer(D, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._parts = (scan, half)
        self._index: Any = faiss.IndexRefine(scan, half)
        self._index.add(vectors)
        self._params = Refining().of(K, 10 * K)

    def search(self, queries: F32) -> tuple[F32, I64]:
        scores, rows = self._index.search(queries, K, params=self._params)
        return scores, rows


def filled(index: VectorIndex, vectors: F32) -> float:
    """Add all vectors, the last tenth in blocks of 64; microseconds per row of those."""
    bulk = len(vectors) * 9 // 10
    for start in range(0, bulk, OPTIONS.build_chunk):
        index.add(vectors[start : min(bulk, start + OPTIONS.build_chunk)])
    began = time.perf_counter()
    for start in range(bulk, len(vectors), ADD_BLOCK):
        index.add(vectors[start : start + ADD_BLOCK])
    spent = time.perf_counter() - began
    for _ in range(100):
        index.maintain()
    return 1e6 * spent / (len(vectors) - bulk)


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def one_query_us(search: Search, queries: F32) -> float:
    return 1e6 * statistics.median(seconds(partial(search, queries[line : line + 1])) for line in range(0, len(queries), 2))


def batch_rate(search: Search, queries: F32) -> float:
    blocks = range(0, len(queries), BATCH)
    return BATCH / statistics.median(seconds(partial(search, queries[start : start + BATCH])) for start in blocks)


def recall(found: I64, truth: I64) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def measured(rows: int, rounds: int) -> list[Line]:
    vectors, queries = sentence_like(rows, QUERIES)
    flat, fast = FlatIndex(OPTIONS), FastScanIndex(OPTIONS, vectors[: OPTIONS.train_sample])
    added = {"flat": filled(flat, vectors), "bare": None, "fast-scan": filled(fast, vectors)}
    bare = Bare(vectors)
    searches: dict[str, Search] = {"flat": lambda q: flat.search(q, K), "bare": bare.search, "fast-scan": lambda q: fast.search(q, K)}
    allowed = np.random.default_rng(1).random(rows) < 0.01
    filtered: dict[str, Search] = {"flat": lambda q: flat.search(q, K, allowed), "fast-scan": lambda q: fast.search(q, K, allowed)}
    truth = flat.search(queries, K)[1]
    one: dict[str, list[float]] = {name: [] for name in searches}
    sifted: dict[str, list[float]] = {name: [] for name in filtered}
    batch: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            one[name].append(one_query_us(search, queries))
            batch[name].append(batch_rate(search, queries))
        for name, search in filtered.items():
            sifted[name].append(one_query_us(search, queries))
    return [
        Line(
            rows=rows,
            index=name,
            one_us=statistics.median(one[name]),
            batch_qps=statistics.median(batch[name]),
            recall_at_10=recall(search(queries)[1], truth),
            add_us=added[name],
            bytes_per_row=(flat.nbytes if name == "flat" else fast.nbytes) / rows,
            one_us_filtered=statistics.median(sifted[name]) if name in sifted else None,
            depth={"flat": None, "bare": 10 * K, "fast-scan": fast.depth}[name],
        )
        for name, search in searches.items()
    ]


def shown(line: Line) -> str:
    cells = [line.one_us, line.batch_qps, line.add_us, line.bytes_per_row, line.one_us_filtered, line.depth]
    one, rate, add, size, sifted, depth = ("-" if cell is None else f"{cell:,.1f}" if cell < 10 else f"{cell:,.0f}" for cell in cells)
    return f"{line.rows:>9,} {line.index:<10}{one:>9}{rate:>10}{line.recall_at_10:>11.4f}{add:>9}{size:>11}{sifted:>9}{depth:>7}"


TARGETS = {10_000: (0.99, 50), 100_000: (0.99, 150), 1_000_000: (0.97, 1500)}
"""Rows -> recall@10 at least, microseconds of one query at most (design/quality.md, section 2)."""


def markdown(lines: list[Line]) -> str:
    """The table for docs, with what the targets say of our own rows."""
    text = [
        "# The index alone",
        "",
        "Written by `make bench-index`: in process, one core, vectors somewhat harder than real sentences. `bare` is FAISS called",
        "directly (PQ fast scan, ten candidates a hit refined); `fast-scan` is ours, which looks as deep as its recall target needs.",
        "The targets were set where bare FAISS took 26, 101 and 1,400 us at 10k, 100k and 1M: compare with its rows.",
        "",
        "| rows | index | one query us | batch 64 q/s | recall@10 | add us | bytes/row | filtered 1 % us | depth | target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        cells = [line.one_us, line.batch_qps, line.add_us, line.bytes_per_row, line.one_us_filtered, line.depth]
        one, rate, add, size, sifted, depth = ("-" if cell is None else f"{cell:,.1f}" if cell < 10 else f"{cell:,.0f}" for cell in cells)
        verdict = "-"
        if line.index == "fast-scan" and line.rows in TARGETS:
            floor, ceiling = TARGETS[line.rows]
            verdict = f"recall >= {floor}: {_met(line.recall_at_10 >= floor)}; <= {ceiling:,} us: {_met(line.one_us <= ceiling)}"
        text.append(
            f"| {line.rows:,} | {line.index} | {one} | {rate} | {line.recall_at_10:.4f} | {add} | {size} | {sifted} | {depth} | {verdict} |"
        )
    return "\n".join([*text, ""])


def _met(true: bool) -> str:
    return "met" if true else "**missed**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2_000, 10_000, 100_000])
    parser.add_argument("--million", action="store_true", help="also 1,000,000 rows: 5 GB of memory and some minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    asked = parser.parse_args()
    single_threaded()
    print(f"{'rows':>9} {'index':<10}{'1 q us':>9}{'b64 q/s':>10}{'recall@10':>11}{'add us':>9}{'bytes/row':>11}{'1 % us':>9}{'depth':>7}")
    lines: list[Line] = []
    for rows in [*asked.rows, *([1_000_000] if asked.million else [])]:
        fresh = measured(rows, asked.rounds)
        lines += fresh
        print("\n".join(shown(line) for line in fresh), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(markdown(lines))


if __name__ == "__main__":
    main()
