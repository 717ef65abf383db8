"""What signing costs a suite: adds a second through real processes, with signatures and without, in turn."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from statistics import median

from ndml.client import AsyncNdmlClient
from ndml.testing import Suite, SuiteOptions
from tests.integration.signed_suite import signed_settings
from tests.perf.tables import Part, Table

_DIMENSION = 384


def signed_adds(seconds: float, clients: int, runs: int) -> Part:
    """Adds a second of one suite, R=3 and W=2, off and on in turn."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(runs):
        for on in (False, True):
            found[on].append(asyncio.run(_measure(on, seconds, clients)))
    without, signed = median(found[False]), median(found[True])
    note = (
        f"One gateway, three memory nodes and one consensus node as processes on this machine, R=3 and W=2, {clients} callers of one add "
        f"each, {_DIMENSION} dimensions, {seconds:.0f} s. Median of {runs} runs in turn. On: every update is signed before it is answered, "
        "judged before it is joined, and kept for repairs; each node writes a second file."
    )
    rows = [("off", f"{without:,.0f}/s", ""), ("on", f"{signed:,.0f}/s", f"{signed / without:.2f}")]
    return Part([], [Table("Signing, through a suite", note, ("signing", "adds", "of off"), rows)])


async def _measure(on: bool, seconds: float, clients: int) -> float:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        settings = signed_settings(directory, 3) if on else {}
        options = SuiteOptions(data_dir=directory, memory_nodes=3, consensus_nodes=1, llm=False, log_level="warning", settings=settings)
        async with Suite(options) as suite, AsyncNdmlClient(suite.grpc_address, tenant="t", timeout_s=20) as client:
            await _load(client, clients, 1.0)  # warms up
            return await _load(client, clients, seconds)


async def _load(client: AsyncNdmlClient, clients: int, seconds: float) -> float:
    until, began = time.monotonic() + seconds, time.monotonic()
    counts = await asyncio.gather(*(_caller(client, number, until) for number in range(clients)))
    return sum(counts) / (time.monotonic() - began)


async def _caller(client: AsyncNdmlClient, number: int, until: float) -> int:
    rng, done = random.Random(number), 0
    while time.monotonic() < until:
        await client.add(f"{number} {done}", embedding=[rng.gauss(0, 1) for _ in range(_DIMENSION)], user=f"u{number}")
        done += 1
    return done
