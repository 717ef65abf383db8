"""Consolidation in bad moments, on a real node: no source lost, no half merge, nothing that outlives its delete or its end."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.btsp.consolidation import Episodes, plan
from ndml.errors import NdmlError, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import types_pb2 as types
from services.memory_node.commit import WriteResult
from services.memory_node.merges import Merge
from services.memory_node.records import Owner, timestamp
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.dynamics_harness import Clock, consolidate, get, happened, near, node, put, said, until
from tests.unit.memory_node.test_bad_dynamics import bounded, delete_of, held

MEMBERS = [f"m{i}" for i in range(4)]
SECRETS = ["saffron", "cardamom", "nutmeg", "fennel"]


async def tea(driver: harness.Driver, ends_s: float = 0.0) -> None:
    """One cluster of four, each with a word of its own, among twenty strangers; `ends_s` 0: none expires, else the first does."""
    members = [said(seed, f"Ann drinks green tea with {SECRETS[i]}", near("tea", 0.97, seed)) for i, seed in enumerate(MEMBERS)]
    if ends_s:
        members[0].expires_at.CopyFrom(timestamp(harness.T0_US + int(ends_s * 1e6)))
    await put(driver, *members, *(said(f"x{i}", f"something else {i}", harness.vector(f"far {i}")) for i in range(20)))


async def words(driver: harness.Driver) -> str:
    """All that is stored or found."""
    stored = [trace.text for trace in await driver.every("u", include_archived=True)]
    return "\n".join([*stored, *await driver.found("u", "tea", 100)])


async def semantic(driver: harness.Driver) -> list[types.MemoryTrace]:
    return [trace for trace in await driver.every("u", include_archived=True) if trace.kind == types.TRACE_KIND_SEMANTIC]


async def states(driver: harness.Driver) -> set[int]:
    return {(await get(driver, seed)).state for seed in MEMBERS}


# Whose words a semantic trace may say


@pytest.mark.parametrize("merged_at_s", [1.0, 11.0], ids=["before its end", "after it, not deleted yet"])
async def test_what_expires_does_not_live_on_in_a_semantic_trace(tmp_path: Path, merged_at_s: float) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"interval_s": 1e6}) as driver:
        await tea(driver, ends_s=10.0)
        clock.now_s += merged_at_s
        await consolidate(driver)
        clock.now_s += 20.0
        assert SECRETS[0] not in await words(driver)
        kept = await words(driver)
        assert all(secret in kept for secret in SECRETS[1:])


async def test_what_its_user_deletes_does_not_live_on_in_a_semantic_trace(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await tea(driver)
        assert (await consolidate(driver)).merged == 1
        await driver.one(delete_of("m0"))
        assert SECRETS[0] not in await words(driver)
        kept = await words(driver)
        assert all(secret in kept for secret in SECRETS[1:]), "the other sources are kept"
        await consolidate(driver)
        assert SECRETS[0] not in await words(driver)


async def test_what_its_user_corrects_does_not_live_on_in_a_semantic_trace(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await tea(driver)
        assert (await consolidate(driver)).merged == 1
        change = types.MemoryTrace(trace_id=harness.trace_id("m0"), text="Ann drinks cold coffee")
        change.embedding.vector = harness.vector("coffee")
        await driver.one(harness.operation("u", update=pb.UpdateAction(trace=change, fields=["text"])))
        assert SECRETS[0] not in await words(driver)


async def test_a_source_deleted_while_its_cluster_is_merged_is_not_in_it(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await tea(driver)
        await driver.search("u", "tea")
        with held(tmp_path / "n"):
            deleted = asyncio.create_task(driver.one(delete_of("m0")))
            await driver.search("u", "tea")  # the delete is on its way to the disk
            merging = asyncio.create_task(consolidate(driver))
            await asyncio.sleep(0.3)
        assert (await deleted).delete.deleted
        await merging
        assert SECRETS[0] not in await words(driver)


async def test_an_imported_merge_ends_with_its_sources_too(tmp_path: Path) -> None:
    async with node(tmp_path / "a", Clock()) as driver:
        await tea(driver)
        assert (await consolidate(driver)).merged == 1
        request = pb.ExportRequest(tenant="t", user="u", include_embedding=True)
        traces = [trace async for chunk in driver.node.exports.stream(request) for trace in chunk.traces]
    async with node(tmp_path / "b", Clock()) as driver:
        await driver.one(harness.operation("u", put=pb.PutAction(traces=traces, skip_existing=True)))
        assert await states(driver) == {types.LIFECYCLE_STATE_CONSOLIDATED}
        assert (await consolidate(driver)).clusters_total == 0, "what is merged already is not merged again"
        await driver.one(delete_of("m0"))
        assert SECRETS[0] not in await words(driver)


# Taking a merge back


async def test_a_merge_that_cannot_be_taken_back_whole_stays_whole(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await tea(driver)
        [made] = (await consolidate(driver)).semantic_trace_ids
    # A queue with room for one: the release of the members fits, the delete does not.
    async with bounded(tmp_path / "n", clock, store={"queue_operations": 1}) as driver:
        await driver.search("u", "tea")
        [result] = await driver.batch([delete_of(made)])
        gone = result.WhichOneof("result") == "delete"
        assert len(await semantic(driver)) == (0 if gone else 1)
        assert (await states(driver) == {types.LIFECYCLE_STATE_CONSOLIDATED}) is not gone


async def test_a_semantic_trace_that_expires_sets_its_sources_free(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await tea(driver)
        [made] = (await consolidate(driver)).semantic_trace_ids
        change = types.MemoryTrace(trace_id=made)
        change.expires_at.CopyFrom(timestamp(harness.T0_US + 10_000_000))
        await driver.one(harness.operation("u", update=pb.UpdateAction(trace=change, fields=["expires_at"])))
        clock.now_s += 11

        async def gone() -> bool:
            return not await semantic(driver) and (await driver.one(harness.operation("u", stats=pb.StatsAction()))).stats.traces == 24

        await until(gone, "the semantic trace is deleted")
        assert types.LIFECYCLE_STATE_CONSOLIDATED not in await states(driver)


async def test_a_semantic_trace_of_another_kind_by_now_still_sets_its_sources_free(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await tea(driver)
        [made] = (await consolidate(driver)).semantic_trace_ids
        change = types.MemoryTrace(trace_id=made, kind=types.TRACE_KIND_EPISODIC)
        await driver.one(harness.operation("u", update=pb.UpdateAction(trace=change, fields=["kind"])))
        await driver.one(delete_of(made))
        assert types.LIFECYCLE_STATE_CONSOLIDATED not in await states(driver)


async def test_deleting_a_merge_twice_at_once_releases_once(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await tea(driver)
        [made] = (await consolidate(driver)).semantic_trace_ids
        results = await driver.batch([delete_of(made), delete_of(made)])
        assert [r.delete.deleted for r in results] == [True, False]
        assert happened(await get(driver, "m0")) == ["released", "consolidated"]


async def test_deleting_all_sources_leaves_the_owner_empty_and_consolidation_done(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await tea(driver)
        [made] = (await consolidate(driver)).semantic_trace_ids
        everyone = [trace.trace_id for trace in await driver.every("u")]
        await driver.batch([delete_of(each) for each in everyone])
        await driver.batch([delete_of(made)])
        assert await words(driver) == ""
        assert (await consolidate(driver)).clusters_total == 0


# Several runs


async def many(driver: harness.Driver, clusters: int) -> None:
    for c in range(clusters):
        await put(driver, *(said(f"c{c} {i}", f"topic{c} seen {'abc'[i]}", near(f"topic {c}", 0.97, str(i))) for i in range(3)))


async def test_two_runs_at_once_make_each_merge_once(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock(), consolidation={"most_runs": 2}) as driver:
        await many(driver, 12)
        one, two = await asyncio.gather(consolidate(driver), consolidate(driver))
        assert one.merged + two.merged == 12 == len(await semantic(driver))
        for c in range(12):
            assert happened(await get(driver, f"c{c} 0")).count("consolidated") == 1


async def test_one_run_too_many_is_overloaded_and_a_run_that_was_left_gives_its_place_back(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await many(driver, 12)
        with held(tmp_path / "n"):
            first = asyncio.create_task(consolidate(driver))
            await asyncio.sleep(0.2)
            with pytest.raises(Overloaded):
                await consolidate(driver)
            first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        await consolidate(driver)
        made = await semantic(driver)
        assert len(made) == 12
        for trace in made:
            assert len([link for link in trace.links if link.type == types.LINK_TYPE_DERIVED_FROM]) == 3
        assert len(await driver.every("u")) == 48


@pytest.mark.parametrize("members", [3, 12, 40], ids=["small", "crowded", "larger than a cluster"])
@pytest.mark.parametrize("done", [1, 3])
def test_a_run_that_was_cut_short_and_goes_on_makes_what_one_run_makes(members: int, done: int) -> None:
    dice = np.random.default_rng(7)
    centres = dice.standard_normal((6, 32))
    vectors = np.repeat(centres / np.linalg.norm(centres, axis=1)[:, None], members, axis=0) + 0.05 * dice.standard_normal(
        (6 * members, 32)
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32)
    ids = [dice.bytes(16) for _ in range(len(vectors))]

    def run(rows: list[int]) -> list[Any]:
        episodes = Episodes(
            [ids[i] for i in rows], [f"words {i}" for i in rows], vectors[rows], np.arange(len(rows), dtype=np.float64)[::-1]
        )
        return list(plan(episodes, contradicting=lambda old, new: None))

    whole = [cluster.semantic.trace_id for cluster in run(list(range(len(ids)))) if cluster.semantic]
    first = [cluster for cluster in run(list(range(len(ids)))) if cluster.semantic][:done]
    merged = {member for cluster in first for member in cluster.members}
    rest = [cluster.semantic.trace_id for cluster in run([i for i in range(len(ids)) if ids[i] not in merged]) if cluster.semantic]
    assert sorted([c.semantic.trace_id for c in first if c.semantic] + rest) == sorted(whole)


async def test_a_merge_asked_for_while_the_node_stops_is_answered(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await many(driver, 1)
        made = harness.trace("made", kind=types.TRACE_KIND_SEMANTIC)
        merge = Merge(made, tuple((bytes.fromhex(harness.trace_id(f"c0 {i}")), i + 1) for i in range(3)), "why")
        engine = driver.node.engine
        await asyncio.to_thread(engine.stop)
        done: Future[WriteResult | NdmlError] = Future()
        engine.merge(Owner("t", "u"), merge, done.set_result)
        # Else the consolidation's thread waits for half a minute, and the process with it.
        assert done.done() and isinstance(done.result(), NdmlError)
