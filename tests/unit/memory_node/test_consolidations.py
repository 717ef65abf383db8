"""Consolidation on the node: merges, what becomes of sources, budgets, rounds. Real store and index, the test's clock."""

from __future__ import annotations

from pathlib import Path

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import types_pb2 as types
from services.memory_node.ports import OwnsAll
from services.memory_node.rounds import Rounds
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.dynamics_harness import Clock, consolidate, get, happened, near, node, put, said, until


async def test_consolidation_merges_what_agrees_keeps_sources_and_is_undone_by_a_delete(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        for i in range(4):
            await put(driver, said(f"m{i}", f"Ann drinks green tea with honey {'abcd'[i]}", near("tea", 0.97, str(i))))
        await put(driver, *(said(f"x{i}", f"something else {i}", harness.vector(f"far {i}")) for i in range(20)))
        assert (await consolidate(driver, dry_run=True)).merged == 1
        assert len(await driver.every("u")) == 24, "a dry run changes nothing"
        done = await consolidate(driver)
        assert (done.merged, done.clusters_total) == (1, 1)
        [made] = done.semantic_trace_ids
        semantic = (await driver.one(harness.operation("u", get=pb.GetAction(trace_id=made)))).trace.trace
        assert semantic.kind == types.TRACE_KIND_SEMANTIC
        assert {link.trace_id for link in semantic.links} == {harness.trace_id(f"m{i}") for i in range(4)}
        member = await get(driver, "m0")
        assert member.state == types.LIFECYCLE_STATE_CONSOLIDATED and any(made in event.why for event in member.history)
        assert len(await driver.every("u")) == 25, "sources are kept"
        assert (await consolidate(driver)).clusters_total == 0, "nothing is merged twice"
        await driver.one(harness.operation("u", delete=pb.DeleteAction(trace_id=made)))
        assert (await get(driver, "m0")).state != types.LIFECYCLE_STATE_CONSOLIDATED
        assert happened(await get(driver, "m0"))[:2] == ["released", "consolidated"]
        again = await consolidate(driver)
        assert (again.merged, again.rejected) == (0, 1), "what its user deleted is not made again"
    async with node(tmp_path / "n", clock) as driver:
        assert happened(await get(driver, "m1"))[0] == "released"


async def test_contradicting_members_are_not_merged(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "I live in Berlin", near("home", 0.97, "1")), said("b", "I live in Munich", near("home", 0.97, "2")))
        await put(driver, *(said(f"x{i}", f"else {i}", harness.vector(f"far {i}")) for i in range(10)))
        done = await consolidate(driver)
        assert (done.merged, done.rejected) == (0, 1)


async def test_a_budget_stops_consolidation_between_clusters(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock(), consolidation={"time_budget_s": 1e-6}) as driver:
        for i in range(2):
            await put(driver, said(f"m{i}", f"tea {'ab'[i]}", near("tea", 0.97, str(i))))
        await put(driver, *(said(f"x{i}", f"else {i}", harness.vector(f"far {i}")) for i in range(10)))
        done = await consolidate(driver)
        assert done.clusters_done == 0 and "budget" in done.stopped_because


async def test_consolidating_nobody_is_done_at_once(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        assert (await consolidate(driver)).clusters_total == 0


def alike() -> list[types.MemoryTrace]:
    """Three traces that consolidation merges among others."""
    return [said(f"m{i}", f"Ben likes tea {'abc'[i]}", near("m", 0.97, str(i))) for i in range(3)]


async def test_rounds_consolidate_owners_that_learned_enough_and_stop_with_the_node(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        rounds = Rounds(driver.node, OwnsAll(), interval_s=0.01, least_new=4)
        await put(driver, *(said(f"x{i}", f"something else {i}", harness.vector(f"far {i}")) for i in range(20)))
        await put(driver, *alike())
        await rounds.start()

        async def merged() -> bool:
            return "semantic" in (await driver.one(harness.operation("u", stats=pb.StatsAction()))).stats.traces_by_kind

        await until(merged, "a round finds the cluster")
        await rounds.stop()


async def test_a_round_leaves_quiet_and_foreign_owners_alone(tmp_path: Path) -> None:
    class OwnsNothing(OwnsAll):
        def owns(self, tenant: str, user: str) -> bool:
            return False

    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, *alike())
        await Rounds(driver.node, OwnsAll(), 1.0, least_new=4).once()
        await Rounds(driver.node, OwnsNothing(), 1.0, least_new=1).once()
        stats = (await driver.one(harness.operation("u", stats=pb.StatsAction()))).stats
        assert dict(stats.traces_by_kind) == {"episodic": 3}
