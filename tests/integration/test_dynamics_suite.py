"""Bad input for feedback and consolidation through the whole suite: its documented reason and field, other users' memory untouched."""

from __future__ import annotations

import math
import random
import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest

from ndml.errors import NdmlError
from ndml.testing import Suite
from ndml.v1 import memory_pb2, memory_pb2_grpc, types_pb2
from ndml.wire import rpc_error_to_ndml, status_to_error

DIMENSION = 384


@pytest.fixture(scope="module")
def stub(suite: Suite) -> Iterator[Any]:
    with grpc.insecure_channel(suite.grpc_address) as channel:
        yield memory_pb2_grpc.MemoryServiceStub(channel)


@pytest.fixture
def user() -> str:
    return f"bad-dynamics-{uuid.uuid4().hex}"


def vector(seed: str) -> types_pb2.Embedding:
    dice = random.Random(seed)
    return types_pb2.Embedding(vector=struct.pack(f"<{DIMENSION}f", *(dice.gauss(0, 1) for _ in range(DIMENSION))))


def memory(user: str, text: str, **fields: Any) -> memory_pb2.NewMemory:
    return memory_pb2.NewMemory(scope={"user": user}, text=text, embedding=vector(text), **fields)


def add(stub: Any, user: str, text: str, request: dict[str, Any] | None = None, **fields: Any) -> memory_pb2.AddMemoryResponse:
    added: memory_pb2.AddMemoryResponse = stub.AddMemory(
        memory_pb2.AddMemoryRequest(memory=memory(user, text, **fields), **(request or {}))
    )
    return added


def get(stub: Any, user: str, trace_id: str) -> types_pb2.MemoryTrace:
    wanted = memory_pb2.GetMemoryRequest(scope={"user": user}, trace_id=trace_id, include_strength=True, include_history=True)
    found: types_pb2.MemoryTrace = stub.GetMemory(wanted).trace
    return found


def reinforcement(user: str, *feedback: dict[str, Any], **fields: Any) -> memory_pb2.ReinforceMemoriesRequest:
    return memory_pb2.ReinforceMemoriesRequest(scope={"user": user}, feedback=feedback, **fields)


def refused(call: Callable[[], Any]) -> NdmlError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return rpc_error_to_ndml(caught.value)


SOME = {"trace_id": "0" * 32, "grade": 1.0}

FEEDBACK: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, Any], str]] = {
    "too many": ((SOME,) * 65, {}, "feedback"),
    "NaN": ((SOME, {"trace_id": "0" * 32, "grade": math.nan}), {}, "feedback[1].grade"),
    "infinite": (({"trace_id": "0" * 32, "grade": math.inf},), {}, "feedback[0].grade"),
    "above 1": (({"trace_id": "0" * 32, "grade": 1.01},), {}, "feedback[0].grade"),
    "no target": (({"grade": 1.0},), {}, "feedback[0].target"),
    "no id": (({"trace_id": "xyz", "grade": 1.0},), {}, "feedback[0].trace_id"),
    "no answer": (({"answer_id": "xyz", "grade": 1.0},), {}, "feedback[0].answer_id"),
    "no reach": ((SOME,), {"spread": {"tau_before": 0.0}}, "spread.tau_before"),
    "reach NaN": ((SOME,), {"spread": {"tau_after": math.nan}}, "spread.tau_after"),
    "unknown clock": ((SOME,), {"spread": {"clock": 9}}, "spread.clock"),
    "long request_id": ((SOME,), {"request_id": "r" * 129}, "request_id"),
}


@pytest.mark.parametrize("name", FEEDBACK)
def test_broken_feedback_is_refused_whole_and_changes_nothing(stub: Any, user: str, name: str) -> None:
    feedback, fields, field = FEEDBACK[name]
    mine = add(stub, user, "kept as it is").trace_id
    before = get(stub, user, mine)
    error = refused(lambda: stub.ReinforceMemories(reinforcement(user, *feedback, {"trace_id": mine, "grade": 1.0}, **fields)))
    assert error.reason == "FIELD_INVALID"
    assert field in [violation.field for violation in error.violations]
    after = get(stub, user, mine)
    assert (after.strength.uses, after.strength.credit) == (before.strength.uses, before.strength.credit)


def test_no_feedback_at_all_is_refused(stub: Any, user: str) -> None:
    error = refused(lambda: stub.ReinforceMemories(reinforcement(user)))
    assert (error.reason, [violation.field for violation in error.violations]) == ("FIELD_INVALID", ["feedback"])


def test_nan_in_json_is_refused_too(suite: Suite, stub: Any, user: str) -> None:
    mine = add(stub, user, "kept as it is").trace_id
    for grade in ("NaN", "Infinity", "-Infinity"):
        body = {"scope": {"user": user}, "feedback": [{"trace_id": mine, "grade": grade}]}
        assert httpx.post(f"{suite.rest_url}/v1/memories:reinforce", json=body).status_code == 400
    bad = refused(lambda: add(stub, user, "too important", salience=math.nan))
    assert (bad.reason, [v.field for v in bad.violations]) == ("FIELD_INVALID", ["memory.salience"])
    assert get(stub, user, mine).strength.uses == 0


def test_another_users_feedback_and_delete_do_not_find_my_memory(stub: Any, user: str) -> None:
    mine, eve = add(stub, user, "mine").trace_id, f"{user}-eve"
    add(stub, eve, "hers")
    done = stub.ReinforceMemories(reinforcement(eve, {"trace_id": mine, "grade": -1.0}))
    assert status_to_error(done.results[0].error).reason == "TRACE_NOT_FOUND" and not done.credited
    assert (
        refused(lambda: stub.DeleteMemory(memory_pb2.DeleteMemoryRequest(scope={"user": eve}, trace_id=mine))).reason == "TRACE_NOT_FOUND"
    )
    kept = get(stub, user, mine)
    assert kept.text == "mine" and kept.strength.uses == 0 and not [e for e in kept.history if e.kind != "state"]


def test_feedback_counts_once_for_a_request_id_of_its_user_alone(stub: Any, user: str) -> None:
    mine, theirs = add(stub, user, "mine").trace_id, add(stub, f"{user}-2", "theirs").trace_id
    for _ in range(3):
        done = stub.ReinforceMemories(reinforcement(user, {"trace_id": mine, "grade": 1.0}, request_id="r"))
    assert done.replayed and get(stub, user, mine).strength.uses == 1
    assert not stub.ReinforceMemories(reinforcement(f"{user}-2", {"trace_id": theirs, "grade": 1.0}, request_id="r")).replayed


def test_a_resent_add_with_deduplicate_gives_the_same_answer_and_one_trace(stub: Any, user: str) -> None:
    first = add(stub, user, "the boat leaves at noon", {"request_id": "a"})
    once = add(stub, user, "the boat leaves at noon", {"request_id": "b", "deduplicate": True})
    again = add(stub, user, "the boat leaves at noon", {"request_id": "b", "deduplicate": True})
    assert once.deduplicated and once.trace_id == again.trace_id == first.trace_id
    assert add(stub, user, "the boat leaves at noon", {"request_id": "a", "deduplicate": True}).replayed
    assert stub.GetMemoryStats(memory_pb2.GetMemoryStatsRequest(scope={"user": user})).traces == 1


def test_an_import_anywhere_in_time_leaves_the_owner_usable(stub: Any, user: str) -> None:
    add(stub, user, "here before")
    odd = [
        types_pb2.MemoryTrace(scope={"user": user}, text=f"in {second}", embedding=vector(str(second)))
        for second in (-62_135_596_800, 253_402_300_799)
    ]
    for trace, second in zip(odd, (-62_135_596_800, 253_402_300_799), strict=True):
        trace.learned_at.FromSeconds(second)
        trace.said_at.FromSeconds(second)
    done = stub.ImportMemories(iter([memory_pb2.ImportMemoriesRequest(traces=odd)]))
    assert (done.imported, done.failed) == (2, 0)
    request = memory_pb2.SearchMemoriesRequest(scope={"user": user}, embedding=vector("here before"), k=5)
    assert {hit.trace.text for hit in stub.SearchMemories(request).hits} == {"here before", *(trace.text for trace in odd)}


def test_export_and_import_keep_words_times_and_links_and_start_the_dynamics_anew(stub: Any, user: str) -> None:
    first = add(stub, user, "the boat leaves at noon", protected=True, salience=0.75).trace_id
    second = add(stub, user, "the boat leaves at noon").trace_id
    stub.ReinforceMemories(reinforcement(user, {"trace_id": first, "grade": 1.0}))
    asked = memory_pb2.ExportMemoriesRequest(scope={"user": user}, include_embedding=True)
    exported = [trace for part in stub.ExportMemories(asked) for trace in part.traces]
    assert [trace.trace_id for trace in exported] == [first, second]
    moved = f"{user}-moved"
    for trace in exported:
        trace.scope.user = moved
    for expected in (2, 0):
        done = stub.ImportMemories(iter([memory_pb2.ImportMemoriesRequest(traces=exported)]))
        assert (done.imported, done.skipped) == (expected, 2 - expected)
    for before, after in zip(exported, [get(stub, moved, first), get(stub, moved, second)], strict=True):
        for field in ("text", "learned_at", "said_at", "links", "protected", "salience", "kind"):
            assert getattr(after, field) == getattr(before, field), field
        assert not [event for event in after.history if event.kind != "state"] and after.strength.uses == 0
    assert [link.trace_id for link in exported[1].links] == [first]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_traces": -1}, "max_traces"),
        ({"max_traces": 1_000_001}, "max_traces"),
        ({"time_budget": {"seconds": -1}}, "time_budget"),
        ({"time_budget": {"seconds": 0}}, "time_budget"),
        ({"time_budget": {"seconds": 90_000}}, "time_budget"),
        ({"scope": {}}, "scope.user"),
    ],
)
def test_a_broken_consolidation_is_refused(stub: Any, user: str, fields: dict[str, Any], field: str) -> None:
    request = memory_pb2.ConsolidateMemoriesRequest(**{"scope": {"user": user}} | fields)
    error = refused(lambda: list(stub.ConsolidateMemories(request)))
    assert error.reason == "FIELD_INVALID"
    assert field in [violation.field for violation in error.violations]
