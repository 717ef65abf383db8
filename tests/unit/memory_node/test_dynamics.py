"""The life of a trace on the node: gate, feedback, forgetting, expiry, consolidation, ranking. Real store and index, the test's clock."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from ndml.errors import TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2
from ndml.v1 import types_pb2 as types
from services.memory_node import schema
from services.memory_node.records import timestamp
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.dynamics_harness import DAY_S, Clock, get, happened, near, node, put, reinforce, said, until

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
        assert happened(kept) == ["restated"] and "2 times" in kept.history[-1].why
        # A retry of a stored add is a replay, not a duplicate of itself.
        [again] = await put(driver, said("a", "the tea is green"), deduplicate=True)
        assert again.existed and not again.duplicate_of


async def test_what_sounds_known_and_names_something_else_is_no_duplicate(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "My dinner begins at 4:53."), said("h", "I live in Oslo."))
        before = (await get(driver, "a")).strength.by_timescale[0]
        news, known = await put(
            driver, said("b", "My dinner starts at 1:44.", near("a", 0.99)), said("i", "i live in oslo.", near("h", 0.99)), deduplicate=True
        )
        assert not news.duplicate_of and news.gate.decision in (types.WRITE_DECISION_RELATED, types.WRITE_DECISION_UPDATE)
        assert news.gate.nearest_trace_id == harness.trace_id("a") and "at 1:44" in (await get(driver, "b")).text
        assert (await get(driver, "a")).strength.by_timescale[0] <= before, "what is not said again is not strengthened"
        assert known.duplicate_of == harness.trace_id("h")


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("speaker", "at_s", "kept"), [("ann", 60.0, True), ("bob", 60.0, False), ("ann", -60.0, False)])
async def test_what_was_known_and_contradicted_since_is_no_duplicate_when_said_again(
    tmp_path: Path, together: bool, speaker: str, at_s: float, kept: bool
) -> None:
    home = said("a", "I live in Oslo.", speaker="ann")
    moved = said("b", "I moved to Porto.", near("a", 0.7), at_s=at_s, speaker=speaker)
    back = said("c", "I live in Oslo.", near("a", 0.99, "x"), at_s=120.0, speaker="ann")
    async with node(tmp_path / "n", Clock()) as driver:
        if together:
            *_, last = await put(driver, home, moved, back, deduplicate=True)
        else:
            await put(driver, home)
            await put(driver, moved)
            [last] = await put(driver, back, deduplicate=True)
        assert bool(last.duplicate_of) != kept
        assert not kept or "contradicted since" in last.gate.reason


@pytest.mark.parametrize("together", [False, True])
async def test_what_a_text_names_as_its_cause_is_linked_with_the_words_that_say_so(tmp_path: Path, together: bool) -> None:
    turns = [
        said("a", "The nightly backup failed again.", at_s=1.0, session="s"),
        said("x", "The dog is ill.", at_s=2.0, session="other"),
        said("b", "That's because the disk was full.", at_s=3.0, session="s"),
        said("c", "So we moved the logs. It took a day.", at_s=4.0, session="s"),
        said("d", "That's because the disk was full!", near("b", 0.5), at_s=9.0),
    ]
    async with node(tmp_path / "n", Clock()) as driver:
        for batch in [turns] if together else [[turn] for turn in turns]:
            await put(driver, *batch)
        reason, effect = await get(driver, "b"), await get(driver, "c")
        [why] = [link for link in reason.links if link.evidence]
        assert (why.type, why.trace_id) == (types.LINK_TYPE_CAUSES, harness.trace_id("a"))
        assert why.evidence == "That's because the disk was full."
        [from_] = [link for link in effect.links if link.evidence]
        assert (from_.type, from_.trace_id) == (types.LINK_TYPE_CAUSED_BY, harness.trace_id("b"))
        assert not [link for link in (await get(driver, "d")).links if link.evidence], "without a session nothing came before it"
        await driver.one(
            harness.operation("u", update={"trace": said("b", "Never mind.", harness.vector("n")), "fields": ["text", "embedding"]})
        )
        assert not [link for link in (await get(driver, "b")).links if link.evidence], "with the words goes what rests on them"


async def test_causes_can_be_switched_off(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock(), gate={"causes": False}) as driver:
        await put(driver, said("a", "The nightly backup failed again.", session="s"))
        await put(driver, said("b", "That's because the disk was full.", at_s=3.0, session="s"))
        assert not [link for link in (await get(driver, "b")).links if link.evidence]


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


# Store


async def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock()) as driver:
        await put(driver, said("a", "old"))
    raw = sqlite3.connect(tmp_path / "n" / "ndml.db", isolation_level=None)
    harness.without_replication(raw)
    for column in ("salience", "encoding", "expires_at_us", "protected"):
        if column == "expires_at_us":
            raw.execute("DROP INDEX traces_expiry")
        raw.execute(f"ALTER TABLE traces DROP COLUMN {column}")
    for table in ("states", "history", "feedback", "proteins", "members"):
        raw.execute(f"DROP TABLE {table}")
    raw.execute("PRAGMA user_version = 1")
    raw.close()
    async with node(tmp_path / "n", Clock()) as driver:
        assert await driver.found("u", "a") == ["old"]
        await reinforce(driver, {"a": 1.0})
        assert (await get(driver, "a")).strength.uses == 1
    assert schema.VERSION == 4


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
        assert hit.trace.strength == before and hit.trace.state == types.LIFECYCLE_STATE_CONSOLIDATING
        assert [trace.state for trace in (await driver.page("u", limit=5)).traces] == [types.LIFECYCLE_STATE_CONSOLIDATING]


async def test_hits_that_say_the_same_compete_where_it_is_switched_on(tmp_path: Path) -> None:
    cosines = {"first": (0.9, "a"), "second": (0.89, "a"), "third": (0.889, "b")}  # the first two say the same
    traces = [said(text, text, near("q", *where)) for text, where in cosines.items()]
    for strength, expected in ((0.0, ["first", "second", "third"]), (1.0, ["first", "third", "second"])):
        async with node(tmp_path / f"n{strength}", Clock(), dynamics={"competition_strength": strength}) as driver:
            await put(driver, *traces)
            hits = (await driver.search("u", "q", explain=True)).hits
            assert [hit.trace.text for hit in hits] == expected
            losses = [share.share for hit in hits for share in hit.signals if share.signal == "competition"]
            assert bool(losses) == bool(strength) and all(loss < 0 for loss in losses)


async def test_scaling_lifts_an_owner_whose_salience_is_low(tmp_path: Path) -> None:
    shares = []
    for rate in (0.0, 0.5):
        async with node(tmp_path / f"n{rate}", Clock(), ranking={"salience_weight": 1.0, "scaling_rate": rate}) as driver:
            await put(driver, *(said(i, f"text {i}", salience=0.2) for i in range(20)))
            [hit] = (await driver.search("u", 3, k=1, explain=True)).hits
            shares.append({share.signal: share.share for share in hit.signals}["salience"])
    assert shares[0] == pytest.approx(0.2) and shares[1] == pytest.approx(0.5, abs=0.01)


async def test_an_import_is_not_judged_but_ranks_by_its_own_salience(tmp_path: Path) -> None:
    async with node(tmp_path / "n", Clock(), ranking={"salience_weight": 0.2}) as driver:
        told = "Marta moved her bakery from Porto to a former lighthouse near Aveiro"
        await put(driver, said("first", told), said("other", "yes"))
        action = pb.PutAction(traces=[said("again", told, near("first", 0.999))], skip_existing=True)
        [outcome] = (await driver.one(harness.operation("u", put=action))).put.outcomes
        assert outcome.gate.decision == types.WRITE_DECISION_UNSPECIFIED
        imported, first = await get(driver, "again"), await get(driver, "first")
        assert imported.gate.salience > 0.3 and happened(first) == []
        hits = (await driver.search("u", "first", k=2, explain=True)).hits
        assert {hit.trace.text for hit in hits} == {told}
        assert all(share.share > 0.05 for hit in hits for share in hit.signals if share.signal == "salience")
