"""One gateway or two, one memory node to three, on one machine: where the throughput goes.

python -m tests.perf.bench_scale [--seconds 4] [--rounds 3] [--users 24] [--rows 500] [--markdown docs/benchmarks-scale.md]

All processes and the load share the machine's cores: more processes cannot give more calls than the cores have time for. So beside the rate
stands the processor time of a call in each role: what a pod with a core of its own would carry is its inverse. Shapes take turns.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import asyncio
import itertools
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc
import psutil

from ndml.testing import Suite, SuiteOptions
from ndml.testing.vectors import sentence_like
from tests.perf.bench_suite import BATCH_ADD, DIMENSION, SEARCH, add_payloads, search_request
from tests.perf.load import load

SHAPES = ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))
"""(gateways, memory nodes)."""
ROLES = ("gateway", "memory-node", "consensus")
_CALLERS = 64
_BATCH = 64


@dataclass(slots=True)
class Shape:
    """A running suite and what was measured on it: a rate and the microseconds of each role and of the load, a round each."""

    suite: Suite
    rates: list[float] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=lambda: {role: [] for role in (*ROLES, "load")})


def processor_s(suite: Suite) -> dict[str, float]:
    """Processor seconds so far, by role; "load" is this process."""
    used = dict.fromkeys((*ROLES, "load"), 0.0)
    for name in suite.names:
        times = psutil.Process(suite.process(name).pid).cpu_times()
        used[next(role for role in ROLES if name.startswith(role))] += times.user + times.system
    own = psutil.Process().cpu_times()
    used["load"] = own.user + own.system
    return used


async def all_gateways(suite: Suite, method: str, payloads: Sequence[bytes], seconds: float) -> int:
    """Calls answered; the callers are dealt out to the gateways."""
    addresses = suite.grpc_addresses
    runs = await asyncio.gather(*(load(address, method, payloads, _CALLERS // len(addresses), seconds) for address in addresses))
    return sum(run.calls for run in runs)


def measure(shape: Shape, method: str, payloads: Sequence[bytes], seconds: float, items: int) -> None:
    """One round. items: things done by a call."""
    before, began = processor_s(shape.suite), time.perf_counter()
    done = asyncio.run(all_gateways(shape.suite, method, payloads, seconds)) * items
    elapsed, after = time.perf_counter() - began, processor_s(shape.suite)
    shape.rates.append(done / elapsed)
    for role, costs in shape.costs.items():
        costs.append((after[role] - before[role]) * 1e6 / done)


def fill(suite: Suite, users: int, rows: int) -> list[bytes]:
    """Users with so many memories each; gives searches of all of them in turn."""
    base, queries = sentence_like(rows, 64, dimension=DIMENSION)
    for user in range(users):
        asyncio.run(load_once(suite.grpc_address, add_payloads(f"u{user}", base, 250)))
    return [search_request(f"u{user}", query).SerializeToString() for query in queries for user in range(users)]


async def load_once(address: str, payloads: Sequence[bytes]) -> None:
    """Each payload once."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", 64 << 20)]) as channel:
        for payload in payloads:
            await channel.unary_unary(BATCH_ADD)(payload)


def adds(users: int, number: int) -> list[bytes]:
    """Batches of new memories, a user each, of users of their own for each round."""
    base, _ = sentence_like(_BATCH, 1, dimension=DIMENSION)
    return [payload for user in range(users) for payload in add_payloads(f"add-{number}-{user}", base, _BATCH)]


def options(folder: Path, gateways: int, nodes: int) -> SuiteOptions:
    """One consensus node, no llm service, one copy: nothing runs that a call does not need."""
    gate = {"memory-node": {"GATE__ENABLED": "false"}}
    return SuiteOptions(
        folder,
        gateways=gateways,
        memory_nodes=nodes,
        consensus_nodes=1,
        replication_factor=1,
        llm=False,
        log_level="warning",
        settings=gate,
    )


def table(title: str, shapes: dict[tuple[int, int], Shape]) -> str:
    first = median(next(iter(shapes.values())).rates)
    lines = [
        f"## {title}",
        "",
        "| gateways | memory nodes | a second | of one and one | gateway, us | memory node, us | consensus, us | load, us |",
    ]
    lines.append("| --- " * 8 + "|")
    for (gateways, nodes), shape in shapes.items():
        rate, costs = median(shape.rates), [f"{median(costs):,.0f}" for costs in shape.costs.values()]
        lines.append(f"| {gateways} | {nodes} | {rate:,.0f} | {rate / first:.2f} x | {' | '.join(costs)} |")
    return "\n".join(lines)


ABOVE = """# One process and several, on one machine

Written by `make bench-scale`: {cores} cores hold every process and the load. {users} users of {rows} memories, vectors given, one copy,
gate off, {callers} callers that are dealt out to the gateways; medians of {rounds} rounds of {seconds:g} s, shapes in turn. *us*: processor
time of a search, or of a memory written, in all processes of a role together.

More processes do not add cores: the rate moves by what they take from each other. What more pods would carry on machines of their own
stands in the processor time: a core of a role does 1,000,000 / us of these a second, and neither a gateway nor a memory node asks another
of its kind for a call (an owner is one partition)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    searched: dict[tuple[int, int], Shape] = {}
    written: dict[tuple[int, int], Shape] = {}
    number = itertools.count()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        queries: dict[tuple[int, int], list[bytes]] = {}
        for shape in SHAPES:
            suite = stack.enter_context(Suite(options(Path(folder) / f"{shape[0]}-{shape[1]}", *shape)))
            searched[shape], written[shape] = Shape(suite), Shape(suite)
            queries[shape] = fill(suite, given.users, given.rows)
        for _ in range(given.rounds):
            for shape in SHAPES:
                measure(searched[shape], SEARCH, queries[shape], given.seconds, 1)
                measure(written[shape], BATCH_ADD, adds(given.users, next(number)), given.seconds, _BATCH)
    above = ABOVE.format(
        cores=psutil.cpu_count(), users=given.users, rows=given.rows, callers=_CALLERS, rounds=given.rounds, seconds=given.seconds
    )
    page = "\n\n".join([above, table("Searches", searched), table("Memories written, 64 a call", written)])
    page += f"\n\nPython {platform.python_version()}, {platform.machine()}.\n"
    print(page)
    if given.markdown:
        given.markdown.write_text(page)


if __name__ == "__main__":
    main()
