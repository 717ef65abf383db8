"""Rows of `bench_consensus` that need real processes: what consensus nodes carry, and how fast copies agree after a partition."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from ndml.internal.v1.replication_pb2 import OwnerUpdate
from ndml.runtime.channel import Dialer
from services.consensus.remotes import PeerDialer
from tests.crash import fabric, partition
from tests.integration.test_consensus import Cluster, cluster_of
from tests.perf.tables import Part, Table
from tests.unit.consensus.delta_harness import Member, update

_BATCH = 64


def carried(updates: int, size: int, runs: int) -> Part:
    """Updates a second that one consensus node makes durable, and that reach another node's reader, three processes on this machine."""
    found = [asyncio.run(_carry(updates, size)) for _ in range(runs)]
    durable, delivered = (median(each) for each in zip(*found, strict=True))
    note = (
        f"Three consensus processes, SQLite with fsync each, all in one zone and on this machine; an author at one sends "
        f"{updates:,} updates of {size} bytes in messages of {_BATCH}, a copy at another takes them. Median of {runs} runs."
    )
    rows = [("durable at the first", f"{durable:,.0f}/s"), ("taken by the other copy", f"{delivered:,.0f}/s")]
    return Part([], [Table("Deltas through consensus nodes", note, ("", "updates"), rows)])


async def _carry(updates: int, size: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as made:
        async with cluster_of(Path(made), 3, CLUSTER__REPLICATION_FACTOR="2") as cluster:
            author, reader = await _attached(cluster)
            sent = [update(10, counter, previous=counter - 1, node="m0", size=size) for counter in range(1, updates + 1)]
            began = time.perf_counter()
            writing = asyncio.create_task(_write(author, sent))
            durable = await _until(lambda: author.acked >= updates, began)
            delivered = await _until(lambda: len(reader.has.get(10, ())) >= updates, began)
            await writing
            await author.detach()
            await reader.detach()
    return updates / durable, updates / delivered


async def _attached(cluster: Cluster) -> tuple[Member, Member]:
    author, reader = Member(10, "m0"), Member(11, "m1")
    await reader.attach_to(await PeerDialer(Dialer(), cluster.addresses[2]).open())
    await author.attach_to(await PeerDialer(Dialer(), cluster.addresses[0]).open())
    return author, reader


async def _write(author: Member, sent: list[OwnerUpdate]) -> None:
    for start in range(0, len(sent), _BATCH):
        await author.write(*sent[start : start + _BATCH])


async def _until(reached: Callable[[], bool], began: float) -> float:
    while not reached():
        await asyncio.sleep(0.005)
    return time.perf_counter() - began


def healed(seconds: float, clients: int) -> Part:
    """Seconds from the end of a partition to equal copies, under load till its end; real processes in network namespaces."""
    if why := fabric.unavailable():
        return Part([], [Table("After a partition", f"Not measured: {why}.", ("",), [])])
    rows = []
    for kind in ("both", "one-way"):
        with tempfile.TemporaryDirectory() as made:
            report = partition.run(kind, seconds, clients, Path(made))
        rows.append((kind, f"{report.acked_while_apart:,}", f"{report.failed}", f"{report.converged_s:.1f} s", f"{len(report.violations)}"))
    note = f"One of three memory nodes and one of three consensus nodes cut off for {seconds:.0f} s, R=3 W=2, {clients} writers."
    head = ("cut", "writes acknowledged meanwhile", "calls failed", "equal copies after", "violations")
    return Part([], [Table("After a partition", note, head, rows)])
