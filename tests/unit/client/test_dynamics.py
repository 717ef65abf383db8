"""Gate, strength, feedback and consolidation through both clients, against a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ndml.client import (
    ConsolidationProgress,
    CreditSpread,
    Feedback,
    GateDecision,
    LifecycleState,
    NewMemory,
    Query,
    RankingWeights,
    SearchMode,
    WriteDecision,
)
from ndml.errors import FieldInvalid, OwnerUnavailable, TraceNotFound
from ndml.v1 import types_pb2


async def test_the_gates_decision_comes_back_and_a_duplicate_is_left_out(memory: Any, server: Any) -> None:
    first = await memory.add("the dog is Pixel", request_id="r")
    assert first.gate == GateDecision(WriteDecision.NOVEL, "new words", familiarity=0.125, novelty_threshold=0.25)
    assert (first.deduplicated, (await memory.add("the dog is Pixel", request_id="r")).gate) == (False, None)
    again = await memory.add("the dog is Pixel", deduplicate=True)
    assert (again.trace_id, again.deduplicated, again.gate.decision) == (first.trace_id, True, "duplicate")
    assert (again.gate.nearest_trace_id, again.gate.similarity, again.gate.familiarity) == (first.trace_id, 1.0, None)
    rows = await memory.add_many(["the dog is Pixel", "the cat is Ada"], deduplicate=True)
    assert [(row.deduplicated, row.gate.decision) for row in rows] == [(True, "duplicate"), (False, "novel")]
    kept = await memory.add("the dog is Pixel")
    assert kept.trace_id != first.trace_id and kept.gate.decision == "duplicate"
    assert len(server.world.traces["default", "ann"]) == 3


async def test_protection_and_an_end_are_given_changed_and_taken_back(memory: Any, server: Any) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    ids = [(await memory.add("x", protected=True, expires_at=end)).trace_id]
    ids += [row.trace_id for row in await memory.add_many([NewMemory("y", protected=True, expires_at=end)])]
    for trace_id in ids:
        stored = await memory.get(trace_id)
        assert (stored.protected, stored.expires_at, stored.state) == (True, end, LifecycleState.NEW)
    later = await memory.update(ids[0], expires_at=end + timedelta(days=1))
    assert (later.expires_at, later.protected) == (end + timedelta(days=1), True)
    free = await memory.update(ids[0], protected=False, expires_at="never")
    assert (free.expires_at, free.protected) == (None, False)
    assert list(server.world.calls("UpdateMemory")[-1].update_mask.paths) == ["protected", "expires_at"]
    with pytest.raises(FieldInvalid) as naive:
        await memory.add("z", expires_at=datetime(2030, 1, 1))
    assert naive.value.violations[0].field == "memory.expires_at"


async def test_strength_and_history_come_where_they_are_asked_for(memory: Any) -> None:
    trace_id = (await memory.add("fact")).trace_id
    plain = await memory.get(trace_id)
    assert plain.strength is None and plain.history == ()
    await memory.reinforce(trace_id, -1)
    whole = await memory.get(trace_id, include_strength=True, include_history=True)
    assert (whole.strength.strength, whole.strength.by_timescale, whole.strength.uses, whole.strength.failures) == (0.25, (1.0, 0.5), 1, 1)
    assert [(event.kind, event.why, event.grade) for event in whole.history] == [("reinforced", "graded -1", -1.0), ("state", "written", 0)]
    assert whole.history[1].state is LifecycleState.NEW and whole.history[1].at is not None


async def test_a_search_says_what_counts(memory: Any, server: Any) -> None:
    await memory.add_many([NewMemory("red apple"), NewMemory("green pear", salience=1.0)])
    plain = await memory.search("apple")
    weighed = await memory.search("apple", weights=RankingWeights(salience=2), include_strength=True, explain=True)
    assert [found[0].memory.text for found in (plain, weighed)] == ["red apple", "green pear"]
    assert plain[0].memory.strength is None and weighed[0].memory.strength.stability_days == 2
    assert weighed[0].signals == {"dense": 0.0, "salience": 2.0}
    await memory.search_many([Query("apple", weights=RankingWeights(strength=0), include_strength=True, mode="fast")])
    sent, batch = server.world.calls("SearchMemories")[-1], server.world.calls("BatchSearchMemories")[0].searches[0]
    assert sent.weights.HasField("salience") and not sent.weights.HasField("strength")
    assert batch.weights.HasField("strength") and batch.include_strength
    assert (sent.mode, batch.mode) == (types_pb2.SEARCH_MODE_UNSPECIFIED, types_pb2.SEARCH_MODE_FAST)


async def test_every_signal_has_its_weight_and_every_mode_its_name(memory: Any, server: Any) -> None:
    signals = [field.name for field in types_pb2.RankingWeights.DESCRIPTOR.fields]
    weights = RankingWeights(**{name: number / 4 for number, name in enumerate(signals)})
    for mode in SearchMode:
        await memory.search("apple", weights=weights, mode=mode)
        sent = server.world.calls("SearchMemories")[-1]
        assert {field.name: value for field, value in sent.weights.ListFields()} == {name: n / 4 for n, name in enumerate(signals)}
        assert types_pb2.SearchMode.Name(sent.mode) == f"SEARCH_MODE_{mode.name}"
    assert len(SearchMode) + 1 == len(types_pb2.SearchMode.values())
    for wrong, field in (({"mode": "best"}, "mode"), ({"weights": RankingWeights(late="1")}, "weights.late")):
        with pytest.raises(FieldInvalid) as refused:
            await memory.search("apple", **wrong)
        assert refused.value.violations[0].field == field


async def test_archived_memories_are_listed_where_asked_and_counted(memory: Any, server: Any) -> None:
    await memory.add_many(["a", "b"])
    first = next(iter(server.world.traces["default", "ann"].values()))
    first.state = 6
    assert [item.text async for item in memory.list()] == ["b"]
    assert [(item.text, item.state) async for item in memory.list(include_archived=True)] == [("b", "new"), ("a", "archived")]
    assert (await memory.stats()).archived_traces == 1


async def test_feedback_on_traces_and_on_an_answer(memory: Any, server: Any) -> None:
    ids = [row.trace_id for row in await memory.add_many(["one", "two"])]
    server.world.model = "tiny"
    answer = memory.chat("what did I say?")
    assert answer.answer_id == "" and [part async for part in answer]
    whole = await memory.reinforce(answer.answer_id, 0.5)
    assert [(row.trace_id, row.strength.successes, row.error) for row in whole.results] == [(trace_id, 1, None) for trace_id in ids]
    assert (whole.credited, whole.replayed) == (4, False)
    spread = CreditSpread("seconds", tau_before=2)
    mixed = await memory.reinforce([Feedback(ids[0]), Feedback("0" * 32, -1)], spread=spread, request_id="once")
    assert mixed.results[0].strength.uses == 2 and isinstance(mixed.results[1].error, TraceNotFound)
    sent = server.world.calls("ReinforceMemories")[-1]
    assert [(f.WhichOneof("target"), f.grade) for f in sent.feedback] == [("trace_id", 1), ("trace_id", -1)]
    assert sent.spread.clock == 2 and sent.spread.HasField("tau_before") and not sent.spread.HasField("tau_after")
    again = await memory.reinforce([Feedback(ids[0])], request_id="once")
    assert again.replayed and again.results == ()


async def test_feedback_that_nothing_took_is_an_error(memory: Any) -> None:
    with pytest.raises(TraceNotFound):
        await memory.reinforce("0" * 32)
    for wrong, field in (("", "feedback.target"), ("answer-99", "feedback[0].answer_id"), (["0" * 32], "feedback")):
        with pytest.raises(FieldInvalid) as refused:
            await memory.reinforce(wrong)
        assert refused.value.violations[0].field == field
    with pytest.raises(FieldInvalid) as refused:
        await memory.reinforce("0" * 32, spread=CreditSpread("days"))
    assert refused.value.violations[0].field == "spread.clock"


async def test_lost_feedback_is_repeated_with_the_same_request_id(memory: Any, server: Any) -> None:
    trace_id = (await memory.add("x")).trace_id
    server.world.failures.append(("ReinforceMemories", OwnerUnavailable("gone", retry_after_s=0.001)))
    assert (await memory.reinforce(trace_id)).results[0].strength.uses == 1
    ids = [call.request_id for call in server.world.calls("ReinforceMemories")]
    assert len(ids) == 2 and len(set(ids)) == 1 and ids[0]
    assert (await memory.search("x")).hits and server.world.calls("SearchMemories")[-1].consistency_token == "token-2"


async def test_a_consolidation_reports_as_it_goes(memory: Any, server: Any) -> None:
    stream = memory.consolidate(max_traces=7, time_budget_s=0.25, dry_run=True)
    steps = [step async for step in stream]
    assert [(step.clusters_done, step.done) for step in steps] == [(1, False), (3, True)]
    assert stream.last == ConsolidationProgress(3, 3, 1, 1, 1, (), True, "dry")
    assert steps[0].semantic_trace_ids == ("a" * 32,)
    sent = server.world.calls("ConsolidateMemories")[0]
    assert (sent.scope.user, sent.max_traces, sent.time_budget.nanos, sent.dry_run) == ("ann", 7, 250_000_000, True)
    server.world.failures.append(("ConsolidateMemories", OwnerUnavailable("gone", retry_after_s=0.001)))
    assert [step.done async for step in memory.consolidate()] == [False, True]
    assert not server.world.calls("ConsolidateMemories")[-1].HasField("time_budget")
    with pytest.raises(FieldInvalid) as refused:
        memory.consolidate(time_budget_s=float("nan"))
    assert refused.value.violations[0].field == "time_budget"


async def test_closing_a_consolidation_ends_the_servers_call(memory: Any, server: Any) -> None:
    server.world.pause.clear()
    stream = memory.consolidate()
    async for step in stream:
        assert not step.done
        break
    assert not server.world.left.is_set()
    await stream.aclose()
    assert await asyncio.to_thread(server.world.left.wait, 10)
    server.world.pause.set()


async def test_a_scope_is_forgotten_and_the_session_knows(memory: Any, server: Any) -> None:
    for text in ("one", "two"):
        await memory.add(text)
    stream = memory.forget()
    assert [erased async for erased in stream] == [1, 2, 2] and stream.done and stream.erased == 2
    assert not (await memory.search("one")).hits
    assert server.world.calls("SearchMemories")[-1].consistency_token == f"token-{server.world.sequence}"
