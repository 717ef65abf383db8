"""Cost of trace state: bytes, read-out of 256 candidates, full scan, writes, loading; one thread.

    python -m tests.perf.bench_state [--rows 1000000] [--json FILE]

`reference` is the same read in the least code that can do it: gather L, subtract, exponentiate in float64, one product; no late phase,
no credit, no bound on the future. `busy` has protein in store, so that the late phase is computed for every row. `load` is what a node
does when an owner comes into memory, without SQLite: packed states of which all were changed, and rows that begin their state. Medians.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy is imported

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ndml.btsp.plateau import CalciumTable
from ndml.btsp.state import StateBlock
from ndml.btsp.timescales import ORIGIN_S, RATES, readout_weights

NOW_S = ORIGIN_S + 40e6
CANDIDATES, TARGET_US, TARGET_BYTES = 256, 100.0, 160
LOADED, CHUNK = 100_000, 4096


def filled(rows: int) -> StateBlock:
    """A year of traces, none strong enough to make protein; written in blocks, as a node does."""
    random = np.random.default_rng(0)
    block = StateBlock()
    for start in range(0, rows, 65536):
        n = min(65536, rows - start)
        block.append(random.random(n), random.uniform(0.25, 0.45, n), NOW_S - random.uniform(0, 3e7, n))
    return block


def median_us(work: Callable[[], object], repeats: int) -> float:
    """Median time of one call, microseconds, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def loading(block: StateBlock, rows: int) -> dict[str, float]:
    """Milliseconds to bring so many states into memory, by the chunk in which the store is read; and to copy their bytes, the reference."""
    packed = [block.pack(np.arange(at, min(rows, at + CHUNK))) for at in range(0, rows, CHUNK)]
    columns = [np.array(block.column(name)[:rows], np.float64) for name in ("salience", "early", "last_graded_s")]

    def unpacked() -> object:
        return [made.extend_packed(chunk) for made in [StateBlock()] for chunk in packed]

    def begun() -> object:
        return [made.append(*(each[at : at + CHUNK] for each in columns)) for made in [StateBlock()] for at in range(0, rows, CHUNK)]

    def copied() -> object:
        return [np.frombuffer(b"".join(chunk), np.uint8).copy() for chunk in packed]

    names = {"load_packed_ms": unpacked, "load_begun_ms": begun, "reference_load_ms": copied}
    return {"loaded_rows": float(rows)} | {name: median_us(work, 5) / 1e3 for name, work in names.items()}


def measure(rows: int) -> dict[str, float]:
    """Every figure of the table."""
    random = np.random.default_rng(1)
    block = filled(rows)
    some = random.integers(0, rows, CANDIDATES)
    levels, weights = np.array(block.column("levels")), readout_weights(0.15)

    def least() -> object:
        return np.exp(levels[some] - (NOW_S - ORIGIN_S) * RATES) @ weights

    found = {"rows": float(rows), "bytes_per_trace": block.nbytes / rows}
    found["reference_256_us"] = median_us(least, 500)
    found["strength_256_us"] = median_us(lambda: block.strength(some, NOW_S), 500)
    found["retrievability_256_us"] = median_us(lambda: block.retrievability(some, NOW_S), 500)
    found["scan_ms"] = median_us(lambda: block.strength(slice(None), NOW_S), 5) / 1e3
    grown = 64
    grades = np.ones(grown)
    found["grade_64_us"] = median_us(lambda: block.grade(some[:grown], grades, NOW_S), 100)
    found["credit_64_us"] = median_us(lambda: block.credit(some[:grown], grades), 100)
    found["pack_64_us"] = median_us(lambda: block.pack(some[:grown]), 100)
    found |= loading(block, min(rows, LOADED))
    block.capture(NOW_S, 1.0)
    found["busy_strength_256_us"] = median_us(lambda: block.strength(some, NOW_S + 60), 500)
    found["busy_scan_ms"] = median_us(lambda: block.strength(slice(None), NOW_S + 60), 5) / 1e3
    found["append_64_us"] = median_us(lambda: block.append(grades, 0.3 * grades, NOW_S), 200)
    table, vector = CalciumTable(), random.normal(size=384).astype(np.float32)
    found["calcium_us"] = median_us(lambda: table.observe("s", vector, 0.5, 0.5, NOW_S), 500)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.rows)
    for name, value in found.items():
        print(f"{name:24s} {value:12.1f}")
    for name, target in (("bytes_per_trace", TARGET_BYTES), ("strength_256_us", TARGET_US), ("busy_strength_256_us", TARGET_US)):
        print(f"{name} {found[name]:.1f}, target {target:g}: {'met' if found[name] <= target else 'missed'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
