"""Bad input and bad moments for the dynamics on a real node: what is acknowledged is kept once, what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.errors import CapacityReached, FieldInvalid, NdmlError, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2
from ndml.v1 import types_pb2 as types
from ndml.wire import status_to_error
from services.memory_node.node import Node
from services.memory_node.ports import OwnsAll
from services.memory_node.records import timestamp
from services.memory_node.settings import GateSection, LifecycleSection
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.dynamics_harness import DAY_S, Clock, get, happened, near, node, profile, put, reinforce, said, until

SAME = "the boat leaves at noon"
YEAR_6000_S = 127_175_529_600
HOUR_S = 3600.0


def delete_of(seed: int | str, user: str = "u") -> pb.Operation:
    trace_id = seed if isinstance(seed, str) and len(seed) == 32 else harness.trace_id(seed)
    return harness.operation(user, delete=pb.DeleteAction(trace_id=trace_id))


def put_of(*traces: types.MemoryTrace, deduplicate: bool = False) -> pb.Operation:
    return harness.operation("u", put=pb.PutAction(traces=traces, deduplicate=deduplicate))


def graded(grades: Sequence[tuple[str, float]], digest: bytes = b"", user: str = "u", **spread: Any) -> pb.Operation:
    feedback = [pb.TraceFeedback(trace_id=harness.trace_id(seed), grade=grade) for seed, grade in grades]
    action = pb.ReinforceAction(request_digest=digest, feedback=feedback, spread=memory_pb2.CreditSpread(**spread))
    return harness.operation(user, reinforce=action)


def ending(seed: str, text: str, at_s: float, vector: bytes = b"") -> types.MemoryTrace:
    """A trace that expires `at_s` seconds after the clock's start."""
    made = said(seed, text, vector)
    made.expires_at.CopyFrom(timestamp(harness.T0_US + int(at_s * 1e6)))
    return made


async def archived(driver: harness.Driver, clock: Clock, seed: str) -> None:
    """Have `seed`, of salience .01, archived: the node was started with room for 10."""
    await put(driver, *(said(f"pad {seed} {i}", f"pad {i}", salience=0.9) for i in range(10)))
    clock.now_s += HOUR_S

    async def gone() -> bool:
        return (await get(driver, seed)).state == types.LIFECYCLE_STATE_ARCHIVED

    await until(gone, f"{seed} is archived")


SMALL: dict[str, Any] = {"owner_capacity": 10, "low_water": 1.0}


async def every_text(driver: harness.Driver) -> set[str]:
    return set(harness.texts(await driver.every("u", include_archived=True)))


@asynccontextmanager
async def bounded(path: Path, clock: Clock, *, life: dict[str, Any] | None = None, **sections: Any) -> AsyncIterator[harness.Driver]:
    """A node with bounds of its own (`store={...}`, `engine={...}`), which looks after an owner all the time."""
    config = harness.settings(path, **sections)
    config.gate = GateSection(profile=profile(path.parent / "profile.json"))
    config.lifecycle = LifecycleSection(**{"interval_s": 0.01} | (life or {}))
    started = Node(config, OwnsAll(), clock)
    await started.start()
    try:
        yield harness.Driver(started)
    finally:
        await started.stop()


TIGHT: dict[str, Any] = {"index_memory_limit": 1 << 16}
"""Index memory for some 180 traces in all."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A disk that takes no write meanwhile: another connection holds the store's write lock. The node waits for it, up to 5 s."""
    other = sqlite3.connect(path / "ndml.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


# The gate: whatever it says, words that it was asked to leave out must stand in a trace that is kept.


async def test_a_duplicate_of_a_trace_that_the_same_batch_deletes_is_kept(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", SAME))
        assert await driver.found("u", "a") == [SAME]  # in memory: the batch below is judged at once
        results = await driver.batch([delete_of("a"), put_of(said("b", SAME, near("a", 1.0)), deduplicate=True)])
        assert results[0].delete.deleted
        assert SAME in await every_text(driver), results[1].put


@pytest.mark.parametrize("broken", [{"text": ""}, {"model": "another"}, {"expires": True}], ids=["no text", "another model", "bad time"])
async def test_a_duplicate_of_a_trace_that_is_refused_is_kept(tmp_path: Path, broken: dict[str, Any]) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        bad = said("bad", SAME)
        bad.text = broken.get("text", SAME)
        bad.embedding.model = broken.get("model", "")
        if broken.get("expires"):
            bad.expires_at.nanos = -1
        outcomes = await put(driver, bad, said("good", SAME, near("bad", 1.0)), deduplicate=True)
        assert outcomes[0].HasField("error") and not outcomes[1].HasField("error")
        assert SAME in await every_text(driver), outcomes[1]


async def test_a_duplicate_of_an_expired_trace_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"interval_s": 1e6}) as driver:
        await put(driver, ending("short", SAME, 10))
        clock.now_s += 11
        [outcome] = await put(driver, said("b", SAME, near("short", 1.0)), deduplicate=True)
        assert not outcome.duplicate_of and await driver.found("u", "short") == [SAME]


async def test_a_duplicate_that_outlives_the_trace_it_repeats_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        await put(driver, ending("short", SAME, 10))
        await put(driver, said("b", SAME, near("short", 1.0)), deduplicate=True)
        clock.now_s += 11
        assert await driver.found("u", "short") == [SAME], "said without an end"


async def test_equal_ids_and_resends_are_one_trace_and_strengthen_nothing(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", SAME))
        before = await get(driver, "a")
        for deduplicate in (False, True):
            outcomes = await put(driver, said("a", SAME), said("a", SAME), deduplicate=deduplicate)
            assert [o.existed for o in outcomes] == [True, True]
            assert not any(o.duplicate_of for o in outcomes)
        after = await get(driver, "a")
        assert happened(after) == [] and after.strength.by_timescale[0] == before.strength.by_timescale[0], "a retry is not said again"
        assert await every_text(driver) == {SAME}


async def test_a_resend_with_a_time_to_live_is_still_one(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        [one] = await put(driver, ending("a", SAME, 60.0))
        [two] = await put(driver, ending("a", SAME, 61.5))  # the second try's end is counted from a later moment
        assert not one.existed and two.existed and not two.HasField("error")
        assert (await get(driver, "a")).expires_at.seconds == harness.T0_US // 1_000_000 + 60


async def test_an_add_that_is_refused_strengthens_nothing(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", SAME))
        bad = said("b", "", near("a", 1.0))
        bad.text = ""
        [outcome] = await put(driver, bad)
        assert outcome.HasField("error")
        assert happened(await get(driver, "a")) == []


async def test_identical_adds_are_duplicates_keep_their_words_and_stay_bounded(tmp_path: Path) -> None:
    # A million: NDML_IDENTICAL_ADDS=1000000 pytest -k identical -o timeout=3600
    total, same = int(os.environ.get("NDML_IDENTICAL_ADDS", "4000")), near("a", 1.0)
    async with node(tmp_path / "n", Clock(), gate={"familiarity_from": 500}) as driver:
        decisions: set[int] = set()
        for start in range(0, total, 1000):
            outcomes = await put(driver, *(said(i, SAME, same) for i in range(start, start + 1000)))
            assert not [o for o in outcomes if o.HasField("error")]
            decisions |= {o.gate.decision for o in outcomes[1 if start == 0 else 0 :]}
        assert decisions == {types.WRITE_DECISION_DUPLICATE}
        stats = (await driver.one(harness.operation("u", stats=pb.StatsAction()))).stats
        assert stats.traces == total and stats.content_bytes == total * len(SAME)
        first = await get(driver, 0)
        assert len(first.history) <= 65 and 0 < first.strength.strength < 1
        assert len(await driver.found("u", same, 100)) == 100
        kept = await put(driver, *(said(f"d{i}", SAME, same) for i in range(1000)), deduplicate=True)
        assert {bool(o.duplicate_of) for o in kept} == {True}


CONSTANT = np.full(harness.DIMENSION, 3.5, "<f4").tobytes()
TINY = np.full(harness.DIMENSION, 1e-42, "<f4").tobytes()
HUGE = np.full(harness.DIMENSION, 3e38, "<f4").tobytes()


async def test_constant_tiny_and_huge_vectors_have_one_direction_and_zero_has_none(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock(), gate={"familiarity_from": 4}) as driver:
        outcomes = await put(driver, *(said(f"c{i}", f"c {i}", vector) for i, vector in enumerate([CONSTANT, TINY, HUGE] * 4)))
        assert not any(o.HasField("error") for o in outcomes)
        again = await put(driver, said("d", "d", CONSTANT), said("zero", "z", bytes(4 * harness.DIMENSION)), said("e", "e", TINY))
        assert [o.HasField("error") for o in again] == [False, True, False]
        assert status_to_error(again[1].error).reason == "EMBEDDING_NOT_FINITE"
        assert [again[i].gate.decision for i in (0, 2)] == [types.WRITE_DECISION_DUPLICATE] * 2
        assert len(await driver.found("u", HUGE, 20)) == 14


# Times


@pytest.mark.parametrize("field", ["said_at", "learned_at", "expires_at"])
@pytest.mark.parametrize("second", [-62_135_596_800, 0, YEAR_6000_S, 253_402_300_799], ids=["year 1", "1970", "year 6000", "year 9999"])
@pytest.mark.parametrize("imported", [False, True], ids=["added", "imported"])
async def test_every_time_of_the_contract_is_kept_and_harms_no_other_trace(tmp_path: Path, field: str, second: int, imported: bool) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock) as driver:
        odd = said("odd", "odd")
        getattr(odd, field).FromSeconds(second)
        if field == "learned_at":
            odd.said_at.FromSeconds(second)
        action = pb.PutAction(traces=[said("a", "one"), odd, said("b", "two")], skip_existing=imported)
        outcomes = (await driver.one(harness.operation("u", put=action))).put.outcomes
        assert not any(o.HasField("error") for o in outcomes)
        expected = {"one", "two"} | ({"odd"} if field != "expires_at" or second > clock.now_s else set())
        assert set(await driver.found("u", "odd")) == expected
    async with node(tmp_path / "n", clock) as driver:
        assert set(await driver.found("u", "odd")) == expected
        await reinforce(driver, {"a": 1.0})
        if "odd" in expected:
            assert 0 <= (await get(driver, "odd")).strength.strength <= 1


async def test_a_clock_that_jumps_far_either_way_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"archive_after_s": 30 * DAY_S}) as driver:
        await put(driver, said("a", "one"), said("b", "two", protected=True))
        for jump_s in (-400 * DAY_S, 900 * DAY_S, -900 * DAY_S, 1.0):
            clock.now_s += jump_s
            result = await reinforce(driver, {"a": 1.0, "b": -0.5})
            assert not any(r.HasField("error") for r in result.results)
            await put(driver, said(f"at {jump_s}", f"at {jump_s}"))
        assert len(await every_text(driver)) == 6
        strong, weak = (await get(driver, "a")).strength, (await get(driver, "b")).strength
        assert (strong.uses, weak.failures) == (4, 4) and 0 <= weak.strength < strong.strength <= 1
        assert 1 <= strong.difficulty <= 10 and 0 < strong.stability_days < np.inf


# Feedback


async def test_feedback_that_is_refused_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "one", session="s"), said("b", "two", session="s"))
        before = [await get(driver, seed) for seed in ("a", "b")]
        for wrong in (float("nan"), float("inf"), 1.5, -1.0001):
            with pytest.raises(FieldInvalid):
                await driver.one(graded([("a", 1.0), ("b", wrong)]))
        spreads: list[dict[str, Any]] = [{"tau_before": float("nan")}, {"tau_after": -1.0}, {"tau_after": float("inf")}]
        for spread in spreads:
            with pytest.raises(FieldInvalid):
                await driver.one(graded([("a", 1.0)], **spread))
        unreadable = graded([("a", 1.0)])
        unreadable.reinforce.feedback.add(trace_id="no id", grade=1.0)
        with pytest.raises(FieldInvalid):
            await driver.one(unreadable)
        await driver.one(graded([("b", 0.5)], clock=memory_pb2.CREDIT_CLOCK_NONE))
        a, b = await get(driver, "a"), await get(driver, "b")
        assert (a.strength, happened(a)) == (before[0].strength, [])
        assert (b.strength.uses, happened(b)) == (1, ["reinforced"])
        await driver.one(graded([("a", 1.0)], clock=memory_pb2.CREDIT_CLOCK_NONE))
        assert (await get(driver, "a")).strength.uses == 1, "what was refused is not counted later"


async def test_feedback_on_nothing_changes_nothing(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "one"), said("gone", "two"))
        await driver.one(delete_of("gone"))
        before = (await get(driver, "a")).strength
        for grades in ([], [("a", 0.0)], [("gone", 1.0)], [("never", 1.0), ("gone", -1.0)]):
            result = (await driver.one(graded(grades, b"d" * 16))).reinforce
            assert not result.sequence and not result.replayed
            errors = [status_to_error(each.error).reason for each in result.results if each.HasField("error")]
            assert errors == ["TRACE_NOT_FOUND" for seed, _ in grades if seed != "a"]
        assert (await get(driver, "a")).strength == before


async def test_another_users_feedback_does_not_find_my_trace(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "mine"))
        await driver.put("eve", said("e", "hers"))
        before = (await get(driver, "a")).strength
        [result] = (await driver.one(graded([("a", -1.0)], user="eve"))).reinforce.results
        assert isinstance(status_to_error(result.error), TraceNotFound)
        assert (await get(driver, "a")).strength == before


async def test_an_expired_trace_takes_no_feedback_no_change_and_is_not_exported(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle={"interval_s": 1e6}) as driver:
        await put(driver, ending("short", "short", 10), said("long", "long", session=""))
        clock.now_s += 11
        result = (await driver.one(graded([("short", 1.0)]))).reinforce
        assert result.results[0].HasField("error"), "GetMemory says that it is gone"
        change = types.MemoryTrace(trace_id=harness.trace_id("short"), salience=0.5)
        with pytest.raises(TraceNotFound):
            await driver.one(harness.operation("u", update=pb.UpdateAction(trace=change, fields=["expires_at"])))
        chunks = [chunk async for chunk in driver.node.exports.stream(pb.ExportRequest(tenant="t", user="u"))]
        assert [trace.text for chunk in chunks for trace in chunk.traces] == ["long"]


async def test_credit_ends_at_the_borders_of_its_session_and_of_six_tau(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, *(said(f"x{i}", f"x {i}", at_s=i, session="x") for i in range(12)))
        await put(driver, *(said(f"y{i}", f"y {i}", at_s=i + 0.5, session="y") for i in range(12)))
        await put(driver, *(said(f"n{i}", f"n {i}", at_s=i + 0.2) for i in range(3)))
        result = (await driver.one(graded([("x0", 1.0)], tau_before=100.0, tau_after=0.5))).reinforce
        touched = {seed for seed in (f"x{i}" for i in range(12)) if happened(await get(driver, seed))}
        assert touched == {"x0", "x1", "x2"} and result.credited == 2
        assert not [seed for seed in ("y0", "y1", "n0", "n1") if happened(await get(driver, seed))], "nothing leaves its session"
        await driver.one(graded([("x11", -1.0)], clock=memory_pb2.CREDIT_CLOCK_SECONDS, tau_before=0.3, tau_after=1e6))
        assert happened(await get(driver, "x10")) == ["credited"] and happened(await get(driver, "x9")) == []
        alone = (await driver.one(graded([("n0", 1.0)]))).reinforce
        assert alone.credited == 0, "traces without a session have no session in common"


async def test_feedback_that_the_disk_refused_is_not_acknowledged_by_its_repeat(tmp_path: Path) -> None:
    seeds = [f"s{i}" for i in range(120)]
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, *(said(seed, seed) for seed in seeds))
        connection = driver.node.store.committer.connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        asked = graded([(seed, 1.0) for seed in seeds], b"d" * 16, clock=memory_pb2.CREDIT_CLOCK_NONE)
        first, repeat = await driver.batch([asked, asked])
        assert status_to_error(first.error).reason == "STORE_UNAVAILABLE"
        assert repeat.HasField("error"), "a repeat that says 'carried out' needs it on disk"
        connection.execute(f"PRAGMA max_page_count = {2 * pages + 100}")
        assert (await get(driver, "s0")).strength.uses == 0
        assert not (await driver.one(asked)).reinforce.replayed
        assert (await get(driver, "s0")).strength.uses == 1


async def test_acknowledged_feedback_survives_owners_that_push_each_other_out_of_memory(tmp_path: Path) -> None:
    async with bounded(tmp_path / "n", Clock(), engine=TIGHT) as driver:
        for user in ("u", "v"):
            await driver.put(user, *(harness.trace(f"{user}{i}", session="s") for i in range(170)))
            await driver.search(user, "any")
        alone: dict[str, Any] = {"clock": memory_pb2.CREDIT_CLOCK_NONE}
        with held(tmp_path / "n"):
            # On its way to a disk that is busy, while its owner leaves memory and is read anew.
            first = asyncio.create_task(driver.one(graded([("u1", 1.0)], **alone)))
            for user in ("u", "v", "u"):
                await driver.search(user, "any")
        assert not (await first).reinforce.results[0].HasField("error")
        await driver.one(graded([("u1", 1.0)], **alone))
        assert (await get(driver, "u1")).strength.uses == 2


# Archived traces


async def test_a_grade_of_zero_and_a_repeat_do_not_bring_an_archived_trace_back(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle=SMALL) as driver:
        await put(driver, said("old", "old", salience=0.01))
        await reinforce(driver, {"old": -0.1}, b"d" * 16, clock=memory_pb2.CREDIT_CLOCK_NONE)
        await archived(driver, clock, "old")
        await reinforce(driver, {"old": 0.0})
        assert "old" not in await driver.found("u", "old", 20), "a grade of 0 changes nothing"
        assert (await reinforce(driver, {"old": -0.1}, b"d" * 16)).replayed
        assert "old" not in await driver.found("u", "old", 20), "a repeat changes nothing"


async def test_an_update_of_an_archived_trace_keeps_its_strength_and_its_state(tmp_path: Path) -> None:
    clock = Clock()
    async with node(tmp_path / "n", clock, lifecycle=SMALL) as driver:
        await put(driver, said("old", "old", salience=0.01))
        await reinforce(driver, {"old": -0.1}, clock=memory_pb2.CREDIT_CLOCK_NONE)
        await archived(driver, clock, "old")
        change = types.MemoryTrace(trace_id=harness.trace_id("old"), speaker="Ann")
        await driver.one(harness.operation("u", update=pb.UpdateAction(trace=change, fields=["speaker"])))
        found, listed = await driver.found("u", "old", 20), harness.texts(await driver.every("u"))
        assert ("old" in found) == ("old" in listed), "search and list agree on what is archived"
        await reinforce(driver, {"old": 1.0}, clock=memory_pb2.CREDIT_CLOCK_NONE)
        kept = await get(driver, "old")
        assert kept.strength.uses == 2, "the feedback that it got before is not lost"
        assert kept.state in (types.LIFECYCLE_STATE_ACTIVE, types.LIFECYCLE_STATE_CONSOLIDATING)
        found = await driver.found("u", "old", 20)
    async with node(tmp_path / "n", clock, lifecycle=SMALL) as driver:
        assert set(await driver.found("u", "old", 20)) == set(found)


async def test_what_is_archived_takes_no_room_of_its_owner(tmp_path: Path) -> None:
    clock = Clock()
    life = {"owner_capacity": 40, "low_water": 0.5, "grace_s": 0.0}
    async with bounded(tmp_path / "n", clock, engine=TIGHT, life=life) as driver:
        for start in range(0, 400, 20):
            outcomes = await put(driver, *(said(f"t{i}", f"text {i}") for i in range(start, start + 20)))
            assert not [o for o in outcomes if o.HasField("error")], f"refused at {start}, with at most 60 in the index"
            clock.now_s += 1

            async def settled() -> bool:
                return (await driver.search("u", "t0", 1)).stats.traces_in_scope <= 40

            await until(settled, "room is made")
    async with bounded(tmp_path / "n", clock, engine=TIGHT, life=life) as driver:
        assert len(await every_text(driver)) == 400
        assert await driver.found("u", "t0", 1)


async def test_where_all_are_protected_they_stay_and_the_end_of_memory_is_a_clear_error(tmp_path: Path) -> None:
    clock = Clock()
    async with bounded(tmp_path / "n", clock, engine=TIGHT, life={"owner_capacity": 10, "grace_s": 0.0}) as driver:
        refused: list[NdmlError] = []
        for i in range(300):
            [outcome] = await put(driver, said(f"p{i}", f"p {i}", protected=True))
            refused += [status_to_error(outcome.error)] if outcome.HasField("error") else []
            clock.now_s += 1
        assert refused and {type(error) for error in refused} == {CapacityReached}
        assert "engine.index_memory_limit" in refused[0].message
        assert (await driver.search("u", "p0", 1)).stats.traces_in_scope == 300 - len(refused), "a protected one is never archived"
        await driver.one(delete_of("p0"))
        [outcome] = await put(driver, said("more", "more"))
        assert not outcome.HasField("error"), "room is made by a delete"


# Restarts


async def test_a_restart_changes_no_bit_of_a_strength_and_no_event(tmp_path: Path) -> None:
    clock, seeds = Clock(), [f"s{i}" for i in range(12)]
    strong = types.RankingWeights(strength=3.0)

    async def look(driver: harness.Driver) -> list[Any]:
        hits = (await driver.search("u", "s0", 20, weights=strong, include_strength=True, explain=True)).hits
        return [*[await get(driver, seed) for seed in seeds], *hits]

    async with node(tmp_path / "n", clock) as driver:
        for i, seed in enumerate(seeds):
            await put(driver, said(seed, f"word{i} thing{i} " * 9, at_s=i, session="s"))
        for hour in range(3):
            clock.now_s += HOUR_S
            await reinforce(driver, {seeds[hour]: 1.0, seeds[hour + 1]: 0.8, seeds[5]: -1.0})
            await put(driver, said(f"again {hour}", "word7 thing7", near("s7", 0.99)))
        clock.now_s += 7 * HOUR_S

        async def cared_for() -> bool:
            visited = all(partition.next_visit_s > clock.now_s for partition in driver.node.engine._residents.all())
            kept = [trace for trace in (await look(driver))[: len(seeds)] if trace.state == types.LIFECYCLE_STATE_CONSOLIDATED]
            return visited and kept != [] and all(any(event.kind == "state" for event in trace.history) for trace in kept)

        await until(cared_for, "what moves by the time that has passed has moved, in memory and in the store")
        before = await look(driver)
    async with node(tmp_path / "n", clock) as driver:
        assert await look(driver) == before
