"""A node with its gate on and the test's clock, and short words for what the tests of the dynamics do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.btsp.calibration import GateProfile
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2
from ndml.v1 import types_pb2 as types
from services.memory_node.node import Node
from services.memory_node.ports import OwnsAll
from services.memory_node.settings import ConsolidationSection, DynamicsSection, GateSection, LifecycleSection, RankingSection
from tests.unit.memory_node import node_harness as harness

DAY_S = 86_400.0


class Clock:
    """Nanoseconds that only the test moves."""

    def __init__(self) -> None:
        self.now_s = harness.T0_US / 1e6

    def __call__(self) -> int:
        return int(self.now_s * 1e9)


def profile(path: Path) -> Path:
    zero = np.zeros(harness.DIMENSION, np.float32)
    made = GateProfile(
        model=harness.MODEL,
        dimension=harness.DIMENSION,
        index="test",
        mean=zero,
        novel=((1, 0.3),),
        distant=0.5,
        related=0.8,
        duplicate=0.95,
        target_miss=0.02,
        calibrated_on="nothing: thresholds of a test",
        count=100,
    )
    path.write_text(made.to_json())
    return path


def near(seed: int | str, cosine: float, other: str = "side") -> bytes:
    """A unit vector at this cosine from vector(seed)."""
    a, b = (np.frombuffer(harness.vector(each), "<f4").astype(np.float64) for each in (seed, f"{seed}-{other}"))
    b -= (a @ b) * a
    return np.asarray(cosine * a + np.sqrt(1 - cosine**2) * b / np.linalg.norm(b), "<f4").tobytes()


def said(seed: int | str, text: str, vector: bytes = b"", at_s: float = 0.0, **fields: Any) -> types.MemoryTrace:
    made = harness.trace(seed, text, said_at_us=harness.T0_US + int(at_s * 1e6), **fields)
    if vector:
        made.embedding.vector = vector
    return made


@asynccontextmanager
async def node(path: Path, clock: Clock, **sections: Any) -> AsyncIterator[harness.Driver]:
    config = harness.settings(path)
    config.gate = GateSection(profile=profile(path.parent / "profile.json"), **sections.get("gate", {}))
    config.lifecycle = LifecycleSection(**{"interval_s": 0.01, "grace_s": 60.0} | sections.get("lifecycle", {}))
    config.ranking = RankingSection(**{"salience_weight": 0.0} | sections.get("ranking", {}))
    config.consolidation = ConsolidationSection(**sections.get("consolidation", {}))
    config.dynamics = DynamicsSection(**sections.get("dynamics", {}))
    started = Node(config, OwnsAll(), clock)
    await started.start()
    try:
        yield harness.Driver(started)
    finally:
        await started.stop()


async def put(driver: harness.Driver, *traces: types.MemoryTrace, deduplicate: bool = False) -> list[pb.PutOutcome]:
    action = pb.PutAction(traces=traces, deduplicate=deduplicate)
    return list((await driver.one(harness.operation("u", put=action))).put.outcomes)


async def get(driver: harness.Driver, seed: int | str) -> types.MemoryTrace:
    action = pb.GetAction(trace_id=harness.trace_id(seed), include_strength=True, include_history=True)
    return (await driver.one(harness.operation("u", get=action))).trace.trace


async def reinforce(driver: harness.Driver, grades: dict[str, float], digest: bytes = b"", **spread: Any) -> pb.ReinforceActionResult:
    feedback = [pb.TraceFeedback(trace_id=harness.trace_id(seed), grade=grade) for seed, grade in grades.items()]
    action = pb.ReinforceAction(request_digest=digest, feedback=feedback, spread=memory_pb2.CreditSpread(**spread))
    return (await driver.one(harness.operation("u", reinforce=action))).reinforce


def happened(trace: types.MemoryTrace) -> list[str]:
    """Kinds of what is kept of its history; its standing now is computed."""
    return [event.kind for event in trace.history if event.kind != "state"]


async def until(condition: Any, what: str) -> None:
    for _ in range(400):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"it did not happen: {what}")


async def consolidate(driver: harness.Driver, **fields: Any) -> memory_pb2.ConsolidateMemoriesResponse:
    request = pb.ConsolidateRequest(tenant="t", user="u", **fields)
    total: memory_pb2.ConsolidateMemoriesResponse | None = None
    async for progress in driver.node.consolidations.stream(request):
        total = progress
    assert total is not None and total.done
    return total
