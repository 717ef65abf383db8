"""What the memory node's engine leaves of the store's and the index's own speed. `python -m tests.perf.bench_node [--json FILE]`

Every row has its reference from the same run on the same data: an absolute time means nothing on a machine that others use. Client,
event loop and engine share this process and its interpreter lock, gRPC is left out (bench of the gateway measures it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np

from ndml.internal.v1 import memory_node_pb2 as pb
from services.gateway.ids import trace_id_of_request
from services.gateway.scopes import Owner as GatewayOwner
from services.memory_node.commit import Commit, WriteJob
from services.memory_node.index import AdaptiveIndex
from services.memory_node.index.fastscan import FastScanIndex
from services.memory_node.records import Owner
from services.memory_node.rows import COLUMNS
from services.memory_node.store import Store
from tests.unit.memory_node import node_harness as harness

DIMENSION = 384
BATCH = 64
IN_FLIGHT = 4
TEXT = "We talked about the trip to the coast and whether the old car would make it there. "

Row = dict[str, str | float]


def vectors(count: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Unit vectors around 64 centres, so that neighbours are neither trivial nor arbitrary."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((64, DIMENSION))
    made = centres[random.integers(0, 64, count)] + 1.2 * random.standard_normal((count, DIMENSION))
    unit: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def put_operations(count: int, owners: int, name: str) -> list[pb.Operation]:
    made = []
    for i, vector in enumerate(vectors(count)):
        trace = harness.trace(f"{name} {i}", f"{i} {TEXT}", dimension=DIMENSION, speaker="ann", session=f"s{i % 7}")
        trace.trace_id = trace_id_of_request(GatewayOwner("t", name), str(i // BATCH), i % BATCH)  # as a batch's ids are given
        trace.embedding.vector = vector.tobytes()
        made.append(harness.put(f"{name}-u{i % owners}", trace))
    return made


def per_second(work: Callable[[], None], items: int) -> float:
    started = time.perf_counter()
    work()
    return items / (time.perf_counter() - started)


def store_rates(directory: Path, operations: Sequence[pb.Operation]) -> tuple[float, float]:
    """Durable rows/s of bare SQLite (one executemany and one commit a batch), and of the node's committer."""
    config = harness.settings(directory, dimension=DIMENSION).store
    store = Store(config, harness.identity(DIMENSION), 10**9)
    store.open()
    jobs = [WriteJob(Owner(op.tenant, op.user), op.put) for op in operations]
    groups = [jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH)]
    commits: list[Commit] = []
    ours = per_second(lambda: commits.extend(store.committer.commit(group) for group in groups), len(jobs))
    rows = [row for commit in commits for each in commit.added.values() for row in each]
    connection = store.committer.connection
    connection.execute("DELETE FROM traces")
    store.checkpoint(empty_log=True)

    def bare() -> None:
        for i in range(0, len(rows), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO traces VALUES ({COLUMNS})", rows[i : i + BATCH])
            connection.execute("COMMIT")

    reference = per_second(bare, len(rows))
    store.close()
    return reference, ours


async def through_engine(driver: harness.Driver, operations: Sequence[pb.Operation]) -> float:
    """Operations/s in batches of BATCH, IN_FLIGHT batches at a time."""
    batches = [operations[i : i + BATCH] for i in range(0, len(operations), BATCH)]
    waiting = iter(batches)

    async def sender() -> None:
        for batch in waiting:
            for result in await driver.batch(batch):
                assert result.WhichOneof("result") != "error", result

    started = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    return len(operations) / (time.perf_counter() - started)


async def median_us(work: Callable[[int], Awaitable[object]], rounds: int) -> float:
    times = []
    for i in range(rounds):
        started = time.perf_counter()
        await work(i)
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def row(what: str, unit: str, ours: float, reference: float, of_what: str) -> Row:
    ratio = ours / reference if unit == "/s" else reference / ours
    return {"path": what, "unit": unit, "ours": ours, "reference": reference, "of": of_what, "ratio": ratio}


async def bench_writes(count: int, owners: int) -> list[Row]:
    operations = put_operations(count, owners, "w")
    with tempfile.TemporaryDirectory(dir=".") as directory:
        bare, committed = store_rates(Path(directory) / "store", operations)
        async with harness.running(harness.settings(Path(directory) / "node", dimension=DIMENSION)) as driver:
            engine = await through_engine(driver, operations)
    what = f"put, batches of {BATCH}, {owners} owners"
    return [
        row(f"{what}: committer", "/s", committed, bare, "bare SQLite, same rows, one index lookup and check less"),
        row(f"{what}: engine", "/s", engine, committed, "committer"),
    ]


async def bench_searches(rows: int, rounds: int) -> list[Row]:
    stored, asked = vectors(rows), vectors(BATCH * rounds, 7)
    with tempfile.TemporaryDirectory(dir=".") as directory:
        async with harness.running(harness.settings(Path(directory), dimension=DIMENSION)) as driver:
            operations = put_operations(rows, 1, "s")
            await through_engine(driver, operations)
            queries = [harness.search("s-u0", query.tobytes(), 10) for query in asked]
            index = await settled(driver, queries[0], stored)

            def alone_batched() -> None:
                for i in range(0, len(asked), BATCH):
                    index.search(asked[i : i + BATCH], 10)

            bare = per_second(alone_batched, len(asked))
            await through_engine(driver, queries)
            batched = await through_engine(driver, queries)
            single = await median_us(lambda i: driver.batch([queries[i]]), 300)

            async def alone(i: int) -> object:
                return index.search(asked[i : i + 1], 10)

            return [
                row(f"search, batches of {BATCH}, {rows} rows", "/s", batched, bare, f"index alone ({index.kind})"),
                row(f"search, one caller, {rows} rows", "us", single, await median_us(alone, 300), f"index alone ({index.kind})"),
            ]


async def settled(driver: harness.Driver, query: pb.Operation, stored: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> AdaptiveIndex:
    """An index of the same kind as the node's has by now, with the same rows."""
    trainer = driver.node._trainer
    index = AdaptiveIndex(driver.node._index_options, trainer, FastScanIndex)
    index.add(stored)
    for _ in range(2000):
        index.poll()
        await driver.batch([query])
        partition = driver.node.engine._residents.get(Owner("t", "s-u0"))
        wanted = "flat" if len(stored) < driver.node._index_options.fast_scan_from else "pq4fs+refine"
        if partition is not None and partition.index.kind == index.kind == wanted:
            return index
        await asyncio.sleep(0.01)
    raise SystemExit("the index was not trained in time")


async def run(count: int, sizes: Sequence[int]) -> list[Row]:
    table = await bench_writes(count, 4) + await bench_writes(count, 200)
    for size in sizes:
        table += await bench_searches(size, 40)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--puts", type=int, default=12_800)
    parser.add_argument("--rows", type=int, nargs="*", default=[500, 10_000])
    options = parser.parse_args()
    table = asyncio.run(run(options.puts, options.rows))
    for each in table:
        print(
            f"{each['path']:<52}{each['ours']:>10,.0f} {each['unit']:<3} reference {each['reference']:>10,.0f}"
            f"  ratio {each['ratio']:.2f} of {each['of']}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
