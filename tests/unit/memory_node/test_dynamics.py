"""The life of a trace on the node: gate, feedback, forgetting, expiry, consolidation, ranking. Real store and index, the test's clock."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.btsp.calibration import GateProfile
from ndml.errors import TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2
from ndml.v1 import types_pb2 as types
from services.memory_node import schema
from services.memory_node.node import Node
from services.memory_node.ports import OwnsAll
from services.memory_node.records import timestamp
from services.memory_node.settings import ConsolidationSection, GateSection, LifecycleSection, RankingSection
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
    config.ranking = RankingSection(**sections.get("ranking", {}))
    config.consolidation = ConsolidationSection(**sections.get("consolidation", {}))
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


# Gate


async def test_the_gate_tells_what_is_new_said_again_changed_and_related(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        [first] = await put(driver, said("a", "I live in Berlin with my cat"))
        assert first.gate.decision == types.WRITE_DECISION_NOVEL
        assert not first.gate.nearest_trace_id
        wanted = [
            ("b", "I live in Berlin with my cat", near("a", 0.97), types.WRITE_DECISION_DUPLICATE, types.LINK_TYPE_DUPLICATES),
            ("c", "I live in Munich with my cat", near("a", 0.93, "x"), types.WRITE_DECISION_UPDATE, types.LINK_TYPE_SUPERSEDES),
            ("d", "The cat sleeps all day", near("a", 0.7, "y"), types.WRITE_DECISION_RELATED, types.LINK_TYPE_RELATED),
            ("e", "Stocks fell", harness.vector("far"), types.WRITE_DECISION_NOVEL, None),
        ]
        for seed, text, vector, decision, link in wanted:
            [outcome] = await put(driver, said(seed, text, vector))
            assert outcome.gate.decision == decision, (seed, outcome.gate)
            assert outcome.gate.reason
            kept = await get(driver, seed)
            assert kept.gate == outcome.gate
            assert [each.type for each in kept.links] == ([] if link is None else [link])
            if link is not None:
                assert kept.links[0].trace_id == harness.trace_id("a")
        # Whatever the gate said, every word is kept.
        assert len(await driver.every("u")) == 5


async def test_a_duplicate_is_left_out_only_where_the_caller_asks_and_strengthens_what_is_kept(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "the tea is green"))
        before = (await get(driver, "a")).strength.by_timescale[0]
        outcomes = await put(driver, said("b", "the tea is green", near("a", 0.99)), said("c", "tea!", near("a", 0.98)), deduplicate=True)
        assert [o.duplicate_of for o in outcomes] == [harness.trace_id("a")] * 2
        assert len(await driver.every("u")) == 1
        kept = await get(driver, "a")
        assert kept.strength.by_timescale[0] > before
        assert kept.strength.uses == 0, "said again is not graded"
        assert happened(kept) == ["restated", "restated"]
        # A retry of a stored add is a replay, not a duplicate of itself.
        [again] = await put(driver, said("a", "the tea is green"), deduplicate=True)
        assert again.existed and not again.duplicate_of


async def test_one_batch_is_judged_against_itself(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        traces = [said("a", "one"), said("b", "one", near("a", 0.99)), said("c", "one", near("a", 0.98))]
        outcomes = await put(driver, *traces, deduplicate=True)
        assert [o.duplicate_of for o in outcomes] == ["", harness.trace_id("a"), harness.trace_id("a")]
        assert harness.texts(await driver.every("u")) == ["one"]


@pytest.mark.parametrize(
    "vector", [bytes(4 * harness.DIMENSION), np.full(harness.DIMENSION, np.nan, "<f4").tobytes(), b"short"], ids=["zero", "nan", "short"]
)
async def test_a_broken_vector_is_refused_and_its_neighbours_are_judged(tmp_path: Path, vector: bytes) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        bad = said("bad", "x")
        bad.embedding.vector = vector
        outcomes = await put(driver, said("a", "one"), bad, said("c", "three"))
        assert [o.HasField("error") for o in outcomes] == [False, True, False]
        assert [o.HasField("gate") for o in outcomes] == [True, False, True]


async def test_many_identical_adds_stay_bounded_and_lose_nothing(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        same = near("a", 1.0)
        for start in range(0, 600, 100):
            outcomes = await put(driver, *(said(str(i), "again and again", same) for i in range(start, start + 100)))
            assert not any(o.HasField("error") for o in outcomes)
        assert len(await driver.every("u")) == 600
        loudest = max([await get(driver, str(i)) for i in (0, 1)], key=lambda trace: len(trace.history))
        assert len(loudest.history) <= 65
        assert np.isfinite(loudest.strength.strength)


async def test_a_plateau_encodes_strongly_and_is_rationed(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        gates = [(await put(driver, said(str(i), f"word{i} thing{i} other{i} more{i} " * 8, at_s=i)))[0].gate for i in range(12)]
        assert any(gate.plateau for gate in gates)
        assert sum(gate.plateau for gate in gates) < 12, "a burst is rationed"
        assert {gate.encoding_strength == 1.0 for gate in gates if gate.plateau} == {True}
        assert all(0 < gate.encoding_strength < 1 for gate in gates if not gate.plateau)
        assert all(0 < gate.salience <= 1 for gate in gates[1:])


# Feedback


async def test_feedback_strengthens_spreads_in_time_survives_a_restart_and_counts_once(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await put(driver, *(said(f"s{i}", f"turn {i}", at_s=60 * i, session="x") for i in range(8)))
        await put(driver, said("other", "elsewhere", session="y"))
        clock.now_s += DAY_S
        base = {seed: await get(driver, seed) for seed in ("s1", "s3", "s4", "s5", "other")}
        result = await reinforce(driver, {"s4": 1.0}, b"d" * 16)
        assert not result.replayed and result.credited > 0
        graded = await get(driver, "s4")
        assert graded.strength.strength > base["s4"].strength.strength
        assert graded.strength.credit > base["s4"].strength.credit
        assert (graded.strength.uses, graded.strength.successes) == (1, 1)
        assert happened(graded) == ["reinforced"]
        before, after, far, other = [(await get(driver, seed)).strength for seed in ("s3", "s5", "s1", "other")]
        assert before.credit > after.credit > base["s5"].strength.credit, "it reaches further back than forward"
        assert before.uses == 0
        assert base["s1"].strength.credit <= far.credit < before.credit
        assert other.credit == base["other"].strength.credit
        again = await reinforce(driver, {"s4": 1.0}, b"d" * 16)
        assert again.replayed
        assert (await get(driver, "s4")).strength.uses == 1
    async with node(tmp_path / "n", clock) as driver:
        kept = await get(driver, "s4")
        assert kept.strength.uses == 1
        assert kept.strength.strength == pytest.approx(graded.strength.strength, abs=0.02)
        assert (await reinforce(driver, {"s4": 1.0}, b"d" * 16)).replayed
        hit = (await driver.search("u", "s4", 1, include_strength=True)).hits[0]
        assert hit.trace.strength.credit == pytest.approx(kept.strength.credit)


async def test_negative_feedback_weakens_and_an_unknown_trace_fails_alone(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "wrong"), said("b", "fine"))
        await driver.one(harness.operation("u", delete=pb.DeleteAction(trace_id=harness.trace_id("b"))))
        before = (await get(driver, "a")).strength
        result = await reinforce(driver, {"a": -1.0, "b": 1.0, "never": 1.0}, clock=memory_pb2.CREDIT_CLOCK_NONE)
        assert [r.HasField("error") for r in result.results] == [False, True, True]
        after = (await get(driver, "a")).strength
        assert after.strength < before.strength
        assert after.failures == 1
        assert (await reinforce(driver, {"a": 0.0})).credited == 0
        assert (await get(driver, "a")).strength.uses == 1, "a grade of zero is no use"


async def test_feedback_to_nobody_says_so(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        result = await reinforce(driver, {"a": 1.0})
        assert result.results[0].HasField("error") and not result.sequence


async def test_a_clock_that_runs_backwards_breaks_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await put(driver, said("a", "one"))
        clock.now_s -= 30 * DAY_S
        await reinforce(driver, {"a": 1.0})
        await put(driver, said("b", "two"))
        clock.now_s += 60 * DAY_S
        strength = (await get(driver, "a")).strength
        assert 0 < strength.strength < 1 and strength.uses == 1


async def test_an_update_keeps_the_trace_s_strength(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "old text"))
        await reinforce(driver, {"a": 1.0})
        change = types.MemoryTrace(trace_id=harness.trace_id("a"), salience=0.9, protected=True)
        await driver.one(harness.operation("u", update=pb.UpdateAction(trace=change, fields=["salience", "protected"])))
        kept = await get(driver, "a")
        assert kept.strength.uses == 1 and kept.protected
        explained = (await driver.search("u", "a", 1, explain=True, weights=types.RankingWeights(salience=1.0))).hits[0]
        assert {s.signal: s.share for s in explained.signals}["salience"] == pytest.approx(0.9)


# Ranking


async def test_salience_and_strength_move_hits_by_their_weights_and_shares_add_up(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await put(driver, said("near", "near", near("q", 0.8), salience=0.1), said("dear", "dear", near("q", 0.7, "z"), salience=0.9))
        assert await driver.found("u", "q") == ["near", "dear"]
        weights = types.RankingWeights(salience=0.5)
        assert await driver.found("u", "q", weights=weights) == ["dear", "near"]
        await reinforce(driver, {"near": 1.0})
        clock.now_s += DAY_S
        strong = types.RankingWeights(salience=0.0, strength=5.0)
        hits = (await driver.search("u", "q", weights=strong, explain=True)).hits
        assert [hit.trace.text for hit in hits] == ["near", "dear"]
        for hit in hits:
            assert sum(s.share for s in hit.signals) == pytest.approx(hit.score, abs=1e-5)
            assert {s.signal for s in hit.signals} == {"dense", "strength"}
        assert await driver.found("u", "q", 1, weights=weights, min_score=99.0) == []


# Forgetting


async def test_the_least_missed_are_archived_for_room_and_use_brings_them_back(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"owner_capacity": 10, "low_water": 0.8}) as driver:
        for i in range(14):
            await put(driver, said(f"t{i}", f"text {i}", salience=0.05 + i / 20, protected=i == 0))
        clock.now_s += 3600

        async def settled() -> bool:
            return (await driver.search("u", "t3", 20)).stats.traces_in_scope == 8

        await until(settled, "the owner's index shrinks to its low mark")
        found = await driver.found("u", "t3", 20)
        assert "text 0" in found, "protected"
        assert "text 13" in found and "text 1" not in found, "salience decides"
        assert len(await driver.every("u")) == 8
        assert len(await driver.every("u", include_archived=True)) == 14
        stats = (await driver.one(harness.operation("u", stats=pb.StatsAction()))).stats
        assert (stats.traces, stats.archived_traces) == (14, 6)
        gone = await get(driver, "t1")
        assert gone.state == types.LIFECYCLE_STATE_ARCHIVED and gone.text == "text 1"
        assert any("room for 10" in event.why for event in gone.history)
        await reinforce(driver, {"t1": 1.0})
        assert "text 1" in await driver.found("u", "t1", 20)
    async with node(tmp_path / "n", clock) as driver:
        found = await driver.found("u", "t1", 20)
        assert len(found) == 9 and "text 1" in found and "text 2" not in found, "what was archived stays so"


async def test_an_expired_trace_is_not_found_and_is_then_deleted(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"interval_s": 0.01}) as driver:
        short = said("short", "short lived", protected=True)
        short.expires_at.CopyFrom(timestamp(harness.T0_US + 10_000_000))
        await put(driver, short, said("long", "long lived"))
        assert set(await driver.found("u", "short")) == {"short lived", "long lived"}
        clock.now_s += 10
        assert await driver.found("u", "short") == ["long lived"]
        with pytest.raises(TraceNotFound):
            await get(driver, "short")

        async def gone() -> bool:
            return (await driver.one(harness.operation("u", stats=pb.StatsAction()))).stats.traces == 1

        await until(gone, "the expired trace is deleted")
        [again] = await put(driver, short)
        assert again.existed, "an erased id never comes back"


async def test_states_are_computed_when_somebody_looks(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await put(driver, said("a", "x"))
        assert (await get(driver, "a")).state == types.LIFECYCLE_STATE_NEW
        clock.now_s += DAY_S  # apart: two novel things at once make a plateau, and its protein captures both
        await put(driver, said("b", "y", at_s=DAY_S))
        clock.now_s += 120 * DAY_S
        await reinforce(driver, {"a": 1.0})
        clock.now_s += 120
        used, unused = await get(driver, "a"), await get(driver, "b")
        assert used.state == types.LIFECYCLE_STATE_ACTIVE and unused.state == types.LIFECYCLE_STATE_AGING
        assert "strength" in used.history[0].why


# Consolidation


async def consolidate(driver: harness.Driver, **fields: Any) -> memory_pb2.ConsolidateMemoriesResponse:
    request = pb.ConsolidateRequest(tenant="t", user="u", **fields)
    total: memory_pb2.ConsolidateMemoriesResponse | None = None
    async for progress in driver.node.consolidations.stream(request):
        total = progress
    assert total is not None and total.done
    return total


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


# Store


async def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "old"))
    raw = sqlite3.connect(tmp_path / "n" / "ndml.db", isolation_level=None)
    for column in ("salience", "encoding", "expires_at_us", "protected"):
        if column == "expires_at_us":
            raw.execute("DROP INDEX traces_expiry")
        raw.execute(f"ALTER TABLE traces DROP COLUMN {column}")
    for table in ("states", "history", "feedback", "proteins"):
        raw.execute(f"DROP TABLE {table}")
    raw.execute("PRAGMA user_version = 1")
    raw.close()
    async with node(tmp_path / "n", Clock()) as driver:
        assert await driver.found("u", "a") == ["old"]
        await reinforce(driver, {"a": 1.0})
        assert (await get(driver, "a")).strength.uses == 1
    assert schema.VERSION == 2


async def test_past_some_traces_familiarity_is_asked_before_any_search(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock(), gate={"familiarity_from": 200}) as driver:
        for start in range(0, 300, 50):
            await put(driver, *(said(f"r{i}", f"text {i}", harness.vector(f"far {i}")) for i in range(start, start + 50)))
        [known] = await put(driver, said("again", "text 7", harness.vector("far 7")))
        assert known.gate.HasField("familiarity") and known.gate.familiarity > known.gate.novelty_threshold
        assert known.gate.decision == types.WRITE_DECISION_DUPLICATE
        assert known.gate.nearest_trace_id == harness.trace_id("r7")
        outcomes = await put(driver, *(said(f"n{i}", f"new {i}", harness.vector(f"new {i}")) for i in range(50)))
        unsearched = [o.gate for o in outcomes if o.gate.HasField("familiarity") and not o.gate.HasField("similarity")]
        assert all(gate.decision == types.WRITE_DECISION_NOVEL for gate in unsearched)
        assert all(gate.familiarity < gate.novelty_threshold for gate in unsearched)


async def test_capture_by_feedback_outlives_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"interval_s": 1e9}) as driver:
        await put(driver, said("weak", "the key hangs by the door"))
        clock.now_s += 600
        await reinforce(driver, {"weak": 1.0}, clock=memory_pb2.CREDIT_CLOCK_NONE)  # two weak events within a tag's life: protein
        clock.now_s += 1800
        before = (await get(driver, "weak")).strength
        assert before.captured > 0.05, "protein is being turned into a late phase"
    async with node(tmp_path / "n", clock, lifecycle={"interval_s": 1e9}) as driver:
        assert (await get(driver, "weak")).strength == before
        [hit] = (await driver.search("u", "weak", include_strength=True)).hits
        assert hit.trace.strength == before and hit.trace.state == types.LIFECYCLE_STATE_ACTIVE
        assert [trace.state for trace in (await driver.page("u", limit=5)).traces] == [types.LIFECYCLE_STATE_ACTIVE]
