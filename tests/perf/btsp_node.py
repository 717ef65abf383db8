"""The gate and consolidation where they work: adds through a whole suite with the gate on and off, consolidation by a real node."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.testing import Suite, SuiteOptions
from ndml.testing.vectors import F32, sentence_like
from ndml.v1.memory_pb2 import ConsolidateMemoriesResponse
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.settings import ConsolidationSection, GateSection, IndexSection
from tests.perf.bench_embed import make_texts
from tests.perf.bench_node import through_engine
from tests.perf.bench_suite import BATCH_ADD, _each, add_payloads
from tests.perf.tables import Part, Row, Table
from tests.unit.memory_node import node_harness as harness

DIMENSION = 384
ADDS_TARGET, CONSOLIDATION_TARGET_S = 5_000.0, 5.0
CALLERS = 8

# Adds


def adds(rows: int, rounds: int) -> Part:
    """Batches of 64 with their vectors to two suites that differ in the gate alone, in turn; every round is an owner of its own."""
    found: dict[tuple[int, bool], list[tuple[float, float]]] = defaultdict(list)
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        suites = {gate: stack.enter_context(_suite(Path(folder), gate)) for gate in (True, False)}
        for round_ in range(rounds):
            payloads = add_payloads(f"owner-{round_}", sentence_like(2 * rows, 1, dimension=DIMENSION, seed=round_)[0])
            for half, part in enumerate((payloads[: len(payloads) // 2], payloads[len(payloads) // 2 :])):
                for gate, suite in suites.items():
                    found[half, gate].append(_added(suite, part, rows))
    return Part([_adds_row(half * rows, rows, *(_medians(found[half, gate]) for gate in (True, False))) for half in range(2)])


def _added(suite: Suite, payloads: list[bytes], rows: int) -> tuple[float, float]:
    """(traces a second, microseconds a trace of the memory node's processor time)."""
    began, before = time.perf_counter(), _node_seconds(suite)
    asyncio.run(_each(suite.grpc_address, BATCH_ADD, payloads, CALLERS))
    return rows / (time.perf_counter() - began), 1e6 * (_node_seconds(suite) - before) / rows


def _medians(runs: list[tuple[float, float]]) -> tuple[float, float]:
    return median(rate for rate, _ in runs), median(us for _, us in runs)


def _adds_row(first: int, rows: int, on: tuple[float, float], off: tuple[float, float]) -> Row:
    return Row(
        f"adds through the gateway, gate on, batches of 64, durable, an owner's traces {first:,} to {first + rows:,}",
        f"{on[0]:,.0f}/s",
        f"gate off {off[0]:,.0f}/s, ratio {on[0] / off[0]:.2f}; memory node {on[1]:.0f} us a trace with it, {off[1]:.0f} without",
        f">= {ADDS_TARGET:,.0f}/s",
        on[0] >= ADDS_TARGET,
    )


def _suite(folder: Path, gate: bool) -> Suite:
    settings = {"memory-node": {"GATE__ENABLED": str(gate).lower()}}
    options = SuiteOptions(data_dir=folder / f"gate-{gate}", memory_nodes=1, consensus_nodes=1, llm=False, settings=settings)  # type: ignore[arg-type]
    return Suite(options)


def _node_seconds(suite: Suite) -> float:
    """Processor time of the memory node so far, all threads."""
    times = psutil.Process(suite.process("memory-node-1").pid).cpu_times()
    return float(times.user + times.system)


# Consolidation

CLUSTER = 4
CLUSTERED = 0.5
"""Share of the traces that are said four times over; the others are alone."""
ASIDE = 0.25
"""How far a restatement stands off what it restates, as a share of its length: cosine .94 between two."""

_CURVE_HEAD = ("traces", "clusters merged", "planning s", "whole run s", "traces/s", "merges/s", "products of all pairs alone s")
_CURVE = """Half of the traces are said four times over, the others once. Planning: reading the owner from SQLite, neighbours, clusters,
texts (a dry run, which writes nothing). The whole run adds one commit for each cluster: the semantic trace and the states of
its four members, on disk. The last column is the arithmetic that no search for all pairs goes without, one matrix product in
blocks."""


def consolidation(sizes: list[int], rounds: int) -> Part:
    """The job on a node with that many traces of one owner, SQLite on disk."""
    lines, target = [], []
    for size in sizes:
        runs = [asyncio.run(_consolidated(size, seed)) for seed in range(rounds)]
        planning, whole, bare = (median(run[i] for run in runs) for i in range(3))
        merged = int(runs[0][3])
        shown = f"{planning:.2f}", f"{whole:.2f}", f"{size / whole:,.0f}", f"{merged / max(1e-9, whole - planning):,.0f}", f"{bare:.2f}"
        lines.append((f"{size:,}", f"{merged:,}", *shown))
        ours, reference = f"{whole:.2f} s ({merged:,} merges)", f"products of all pairs alone {bare:.2f} s"
        target = [
            Row(f"consolidation of {size:,} traces", ours, reference, f"<= {CONSOLIDATION_TARGET_S:g} s", whole <= CONSOLIDATION_TARGET_S)
        ]
    return Part(target, [Table("Consolidation, by size", _CURVE, _CURVE_HEAD, lines)])


async def _consolidated(size: int, seed: int) -> tuple[float, float, float, int]:
    """(seconds of planning, of the whole run, of the reference; clusters merged)."""
    vectors, traces = _episodes(size, seed)
    with TemporaryDirectory() as folder:
        config = harness.settings(Path(folder), dimension=DIMENSION)
        config.gate = GateSection(enabled=False)
        config.consolidation = ConsolidationSection(time_budget_s=600)
        async with harness.running(config) as driver:
            await through_engine(driver, [harness.put("u", trace) for trace in traces])
            await _settled(driver, vectors)
            planning, _ = await _run(driver, dry_run=True)
            whole, last = await _run(driver, dry_run=False)
    return planning, whole, _all_pairs_s(vectors), last.merged


async def _settled(driver: harness.Driver, vectors: F32) -> None:
    """Until the owner's index is quantised, where it is large enough: its training is not what is measured."""
    from_rows = IndexSection().fast_scan_from
    while len(vectors) >= from_rows and (await driver.search("u", vectors[0].tobytes())).stats.index == "flat":
        await asyncio.sleep(0.1)


async def _run(driver: harness.Driver, *, dry_run: bool) -> tuple[float, ConsolidateMemoriesResponse]:
    request = pb.ConsolidateRequest(tenant="t", user="u", dry_run=dry_run)
    began = time.perf_counter()
    steps = [ConsolidateMemoriesResponse.FromString(step.SerializeToString()) async for step in driver.node.consolidations.stream(request)]
    spent = time.perf_counter() - began
    if not steps[-1].done or steps[-1].stopped_because:
        raise RuntimeError(f"the consolidation did not run to its end: {steps[-1]}")
    return spent, steps[-1]


def _episodes(size: int, seed: int) -> tuple[F32, list[MemoryTrace]]:
    """Unit vectors and traces in random order; clusters restate one text."""
    random = np.random.default_rng(seed)
    clusters = round(CLUSTERED * size / CLUSTER)
    base, _ = sentence_like(size - clusters * (CLUSTER - 1), 1, dimension=DIMENSION, seed=seed)
    about = np.r_[np.repeat(np.arange(clusters), CLUSTER), np.arange(clusters, len(base))]
    aside = random.standard_normal((size, DIMENSION), dtype=np.float32) * np.float32(ASIDE / np.sqrt(DIMENSION))
    vectors = base[about] + np.where(about < clusters, 1, 0).astype(np.float32)[:, None] * aside
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = make_texts(len(base))
    order = random.permutation(size)
    traces = []
    for place, row in enumerate(order.tolist()):
        text = f"{texts[about[row]]} {_AGAIN[place % len(_AGAIN)]}"
        traces.append(harness.trace(f"{seed}-{row}", text, dimension=DIMENSION, embedding={"vector": vectors[row].tobytes()}))
    return vectors[order], traces


_AGAIN = ("really", "honestly", "of course", "you know", "as they say")


def _all_pairs_s(vectors: F32, block: int = 512) -> float:
    """Seconds for every product of two rows, once."""
    began = time.perf_counter()
    for at in range(0, len(vectors), block):
        _ = vectors[at : at + block] @ vectors[at:].T
    return time.perf_counter() - began
