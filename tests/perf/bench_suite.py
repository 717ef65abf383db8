"""The suite's speed beside its references, in one run: `make bench`, or

    python -m tests.perf.bench_suite [--seconds 4] [--rounds 3] [--rows 10000] [--json docs/benchmarks.json] [--markdown docs/benchmarks.md]

Ours and the reference alternate, `rounds` times; the table has medians. Two cores are shared by all servers and the load client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from ndml.client import NdmlClient
from ndml.testing import Suite, SuiteOptions, free_ports
from ndml.testing.layout import Role
from ndml.testing.vectors import sentence_like
from ndml.v1 import memory_pb2
from services.llm.encoder import HuggingFaceEncoder
from services.llm.settings import EmbeddingSection
from tests.perf import bench_embed, bench_node
from tests.perf.load import Measured, load, median_of
from tests.perf.reference import SERVICE
from tests.perf.vectors import clustered

DIMENSION = 384
FAST_SCAN_FROM = 4096
WORDS = (
    "user",
    "said",
    "that",
    "Monday",
    "they",
    "would",
    "rather",
    "walk",
    "to",
    "market",
    "with",
    "Rosa",
    "and",
    "dog",
    "before",
    "rain",
)
SEARCH = "/ndml.v1.MemoryService/SearchMemories"
BATCH_SEARCH = "/ndml.v1.MemoryService/BatchSearchMemories"
BATCH_ADD = "/ndml.v1.MemoryService/BatchAddMemories"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what is measured, ours, the reference of the same run, the target and whether it is met."""

    path: str
    ours: str
    reference: str
    target: str
    met: bool


def text_of(i: int) -> str:
    return f"{i}: " + " ".join(WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(14))


def add_payloads(user: str, vectors: NDArray[np.float32], batch: int = 64) -> list[bytes]:
    out = []
    for at in range(0, len(vectors), batch):
        request = memory_pb2.BatchAddMemoriesRequest()
        for i, vector in enumerate(vectors[at : at + batch], at):
            memory = request.memories.add(text=text_of(i), speaker="user")
            memory.scope.user = user
            memory.embedding.vector = vector.tobytes()
        out.append(request.SerializeToString())
    return out


def text_payloads(user: str, texts: list[str], batch: int = 64) -> list[bytes]:
    out = []
    for at in range(0, len(texts), batch):
        request = memory_pb2.BatchAddMemoriesRequest()
        for text in texts[at : at + batch]:
            request.memories.add(text=text).scope.user = user
        out.append(request.SerializeToString())
    return out


def search_request(user: str, vector: NDArray[np.float32]) -> memory_pb2.SearchMemoriesRequest:
    request = memory_pb2.SearchMemoriesRequest(k=10)
    request.scope.user = user
    request.embedding.vector = vector.tobytes()
    return request


@contextlib.contextmanager
def reference(first: str, second: str, *node_arguments: int) -> Iterator[str]:
    """A reference node and its gateway as processes; gives the gateway's address."""
    node_port, port = free_ports(2)
    processes = []
    try:
        for role, arguments in ((first, (node_port, *node_arguments)), (second, (port, node_port))):
            command = [sys.executable, "-m", "tests.perf.reference", role, *map(str, arguments)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"the reference {role} did not start")
        yield f"127.0.0.1:{port}"
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Bench:
    """Holds the running suite and the options; each method gives rows."""

    def __init__(self, suite: Suite, seconds: float, rounds: int, rows: int) -> None:
        self.suite = suite
        self.seconds = seconds
        self.rounds = rounds
        self.rows = rows
        self.address = suite.grpc_address

    def fill(self, user: str, rows: int) -> NDArray[np.float32]:
        """Give `user` that many memories; returns queries for them [1024, d]."""
        base, queries = sentence_like(rows, 1024, dimension=DIMENSION)
        asyncio.run(_each(self.address, BATCH_ADD, add_payloads(user, base, 256), 4))
        return queries

    def prepare(self) -> list[Row]:
        """The searched scope, its index trained."""
        self.queries = self.fill("search", self.rows)
        if self.rows >= FAST_SCAN_FROM:
            asyncio.run(self._settled(search_request("search", self.queries[0]).SerializeToString()))
        return []

    def _alternate(self, ours: Callable[[], Awaitable[Measured]], theirs: Callable[[], Awaitable[Measured]]) -> tuple[Measured, Measured]:
        a, b = [], []
        for _ in range(self.rounds):
            b.append(asyncio.run(_awaited(theirs)))
            a.append(asyncio.run(_awaited(ours)))
        return median_of(a), median_of(b)

    def add_batches(self) -> Row:
        """Durable adds in batches of 64 with vectors given, against the store's own group commits of the same rows."""
        rates, stores = [], []
        for round_ in range(self.rounds):
            vectors = clustered(8192, DIMENSION, seed=10 + round_)
            with tempfile.TemporaryDirectory() as folder:
                _, committed = bench_node.store_rates(Path(folder), bench_node.put_operations(len(vectors), 1, f"store-{round_}"))
            stores.append(committed)
            payloads = add_payloads(f"add-{round_}", vectors)
            began = time.perf_counter()
            asyncio.run(_each(self.address, BATCH_ADD, payloads, 8))
            rates.append(len(vectors) / (time.perf_counter() - began))
        ours, store = float(np.median(rates)), float(np.median(stores))
        return Row(
            "add, batches of 64, durable, vectors given",
            f"{ours:,.0f}/s",
            f"store alone {store:,.0f}/s, ratio {ours / store:.2f}",
            ">= 15,000/s and >= 0.5 x the store",
            ours >= 15000 and ours >= 0.5 * store,
        )

    def search_one_caller(self) -> Row:
        """One caller against a two-hop echo plus the bare FAISS search."""
        queries = self.queries[:256]
        payloads = [search_request("search", q).SerializeToString() for q in queries]
        flat_ms = bare_faiss_ms(self.rows, queries)
        with reference("echo-node", "echo-gateway") as echo:
            ours, theirs = self._alternate(
                lambda: load(self.address, SEARCH, payloads, 1, self.seconds),
                lambda: load(echo, f"/{SERVICE}/Search", payloads, 1, self.seconds),
            )
        bound = theirs.p50_ms + flat_ms
        return Row(
            f"search, 1 caller, {self.rows:,} in scope",
            f"p50 {ours.p50_ms:.2f} ms, p99 {ours.p99_ms:.2f} ms",
            f"echo {theirs.p50_ms:.2f} + FAISS flat {flat_ms:.2f} ms, ratio {ours.p50_ms / bound:.2f}",
            "p50 <= 1.3 x",
            ours.p50_ms <= 1.3 * bound,
        )

    def search_many_callers(self) -> Row:
        """64 callers against the draining gateway with FAISS flat."""
        queries = self.queries[:256]
        payloads = [search_request("search", q).SerializeToString() for q in queries]
        raw = [q.tobytes() for q in queries]
        with reference("drain-node", "drain-gateway", self.rows, DIMENSION) as drain:
            ours, theirs = self._alternate(
                lambda: load(self.address, SEARCH, payloads, 64, self.seconds),
                lambda: load(drain, f"/{SERVICE}/Search", raw, 64, self.seconds),
            )
        ratio = ours.per_second / theirs.per_second
        return Row(
            f"search, 64 callers, {self.rows:,} in scope",
            f"{ours.per_second:,.0f}/s, p99 {ours.p99_ms:.1f} ms",
            f"draining gateway {theirs.per_second:,.0f}/s, ratio {ratio:.2f}",
            ">= 5,000/s and >= 0.8 x",
            ours.per_second >= 5000 and ratio >= 0.8,
        )

    def batch_search(self, user: str, rows: int, target: int) -> Row:
        """64 queries a message, six messages under way, against FAISS alone in the benchmark's own process."""
        queries = self.queries
        payloads = []
        for at in range(0, len(queries), 64):
            batch = memory_pb2.BatchSearchMemoriesRequest(searches=[search_request(user, q) for q in queries[at : at + 64]])
            payloads.append(batch.SerializeToString())
        runs = [asyncio.run(load(self.address, BATCH_SEARCH, payloads, 6, self.seconds)) for _ in range(self.rounds)]
        ours = median_of(runs)
        bare = 1000 / bare_faiss_ms(rows, queries, batch=64, fast_scan=rows >= FAST_SCAN_FROM)
        rate = ours.per_second * 64
        return Row(
            f"batch search of 64, {rows:,} in scope",
            f"{rate:,.0f}/s",
            f"bare FAISS in process, batch 64, one core {bare:,.0f}/s, ratio {rate / bare:.2f}",
            f">= {target:,}/s",
            rate >= target,
        )

    def add_texts(self) -> Row:
        """Adding texts (the llm service embeds) against the bare model's batched rate."""
        encoder = HuggingFaceEncoder.load(EmbeddingSection(), packed=False)
        rates, bare = [], []
        for round_ in range(self.rounds):
            texts = [f"{text} (round {round_})" for text in bench_embed.make_texts(768)]
            bare.append(bench_embed.bare(encoder, texts))
            payloads = text_payloads(f"texts-{round_}", texts)
            began = time.perf_counter()
            asyncio.run(_each(self.address, BATCH_ADD, payloads, 4))
            rates.append(len(texts) / (time.perf_counter() - began))
        ours, model = float(np.median(rates)), float(np.median(bare))
        return Row(
            "add, text (embedded by llm)",
            f"{ours:,.0f}/s",
            f"bare model {model:,.0f}/s, ratio {ours / model:.2f}",
            ">= 0.9 x",
            ours >= 0.9 * model,
        )

    def memory_and_restart(self, rows: int) -> list[Row]:
        """Memory of all services per trace beside the raw vectors, and the restart of the memory node that holds them."""
        before = self._resident_bytes()
        queries = self.fill("large", rows)[:16]
        payloads = [search_request("large", q).SerializeToString() for q in queries]
        asyncio.run(self._settled(payloads[0]))
        raw = rows * DIMENSION * 4
        grown = self._resident_bytes() - before
        with NdmlClient(self.address, user="large") as client:
            [node] = client.placement().owners
        began = time.perf_counter()
        self.suite.restart(node)
        ready_s = time.perf_counter() - began
        asyncio.run(_each(self.address, SEARCH, payloads[:1], 1))
        first_s = time.perf_counter() - began
        return [
            Row(
                f"memory, {rows:,} traces",
                f"{grown / rows:,.0f} B a trace",
                f"raw vectors {raw / rows:,.0f} B, ratio {grown / raw:.2f}",
                "<= 2.5 x",
                grown <= 2.5 * raw,
            ),
            Row(f"restart, {rows:,} traces", f"ready {ready_s:.2f} s, first search {first_s:.2f} s", "-", "ready < 5 s", ready_s < 5),
        ]

    def _resident_bytes(self) -> int:
        return sum(psutil.Process(self.suite.process(name).pid).memory_info().rss for name in self.suite.names)

    async def _settled(self, payload: bytes) -> None:
        """Search until the background training of the index is over."""
        for _ in range(120):
            [reply] = await _each(self.address, SEARCH, [payload], 1)
            if memory_pb2.SearchMemoriesResponse.FromString(reply).stats.index != "flat":
                return
            await asyncio.sleep(0.5)


def bare_faiss_ms(rows: int, queries: NDArray[np.float32], batch: int = 1, *, fast_scan: bool = False) -> float:
    """Median milliseconds of one query in process, one core, `batch` queries at a time: exact, or PQ fast-scan refined tenfold."""
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 8 * DIMENSION
    base, _ = sentence_like(rows, 1, dimension=DIMENSION)
    index = faiss.index_factory(DIMENSION, "PQ96x4fs,Refine(SQfp16)" if fast_scan else "Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(base[:4096])
    index.add(base)
    if fast_scan:
        faiss.downcast_index(index).k_factor = 10
    times = []
    for at in range(0, len(queries) - batch + 1, batch):
        began = time.perf_counter()
        index.search(queries[at : at + batch], 10)
        times.append((time.perf_counter() - began) * 1000 / batch)
    return float(np.median(times))


async def _awaited(make: Callable[[], Awaitable[Measured]]) -> Measured:
    return await make()


async def _each(address: str, method: str, payloads: list[bytes], callers: int) -> list[bytes]:
    """Every payload once, `callers` at a time."""
    import grpc

    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", 64 << 20)]) as channel:
        call: Any = channel.unary_unary(method)
        gate = asyncio.Semaphore(callers)

        async def one(payload: bytes) -> bytes:
            async with gate:
                reply: bytes = await call(payload)
                return reply

        return await asyncio.gather(*(one(p) for p in payloads))


def run(options: argparse.Namespace) -> list[Row]:
    # Without the write gate, as the references are; benchmarks-btsp.md has what it costs. Ranking is the suite's own.
    settings: Mapping[Role, Mapping[str, str]] = {"memory-node": {"GATE__ENABLED": "false"}}
    with (
        tempfile.TemporaryDirectory() as folder,
        Suite(SuiteOptions(data_dir=Path(folder), memory_nodes=options.memory_nodes, settings=settings)) as suite,
    ):
        bench = Bench(suite, options.seconds, options.rounds, options.rows)
        steps: list[Callable[[], Row | list[Row]]] = [
            bench.add_batches,
            bench.prepare,
            bench.search_one_caller,
            bench.search_many_callers,
            lambda: bench.batch_search("search", options.rows, 20_000),
            lambda: (bench.fill("few", 500), bench.batch_search("few", 500, 30_000))[1],
            bench.add_texts,
            lambda: bench.memory_and_restart(options.large),
        ]
        rows: list[Row] = []
        for step in steps:
            found = step()
            for row in found if isinstance(found, list) else [found]:
                print(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   [{row.reference}]   target {row.target}", flush=True)
                rows.append(row)
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one load run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, alternating with its reference")
    parser.add_argument("--rows", type=int, default=10_000, help="memories in the searched scope")
    parser.add_argument("--large", type=int, default=100_000, help="memories for memory and restart")
    parser.add_argument("--memory-nodes", type=int, default=1, help="memory nodes; one core is left for gateway and client")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    rows = run(options)
    if options.json:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "rounds": options.rounds, "seconds": options.seconds}
        options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows, options))


def markdown(rows: list[Row], options: argparse.Namespace) -> str:
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` ({psutil.cpu_count()} cores for all servers and the load client, medians of {options.rounds} alternating",
        f"runs of {options.seconds:g} s, {options.memory_nodes} memory node). The machine is shared and noisy: read the ratios first.",
        "The targets were set on a quiet machine whose two-hop echo took 0.65 ms and whose draining gateway did 6,700 searches/s.",
        "",
        "| path | ours | reference in the same run | target | met |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {r.path} | {r.ours} | {r.reference} | {r.target} | {'yes' if r.met else '**no**'} |" for r in rows]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
