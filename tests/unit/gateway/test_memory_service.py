"""What the gateway's cores make of a request and of the node's answer, over a `Nodes` port that notes what it is asked."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import ConsistencyTokenInvalid, FieldInvalid, NdmlError, OwnerUnavailable, PageTokenInvalid, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime.call import Call
from ndml.runtime.validation import ProtoValidator
from ndml.v1 import memory_pb2, types_pb2
from ndml.wire import error_to_status
from services.gateway.answers import write_answer_id
from services.gateway.consolidate import Consolidate
from services.gateway.forget import Forget
from services.gateway.ids import request_digest
from services.gateway.manage import Manage
from services.gateway.ports import NOTHING_SEEN, Done, Embedded, Seen
from services.gateway.profile import Profile
from services.gateway.recall import Recall
from services.gateway.reinforce import MAX_GRADED, Reinforce
from services.gateway.remember import Remember
from services.gateway.scopes import Owner
from services.gateway.servicer import MemoryServicer
from services.gateway.tokens import read_consistency_token, write_consistency_token
from services.gateway.vectors import VectorSpace

NOW_S = 1_800_000_000
IDS = [f"{i:032x}" for i in range(1, 200)]
SCOPE = types_pb2.Scope(user="ann")
UNIT = np.array([1, 0], "<f4").tobytes()
SIGNED = np.array([[127, -3], [-127, 0], [-1, -127]], np.int8).tobytes()
"""Word vectors as the llm service makes them; WORDS: as they are kept."""
WORDS = bytes([0b10_000000, 0b01_000000, 0])
GATE = types_pb2.GateDecision(decision="WRITE_DECISION_DUPLICATE", similarity=0.97, nearest_trace_id=IDS[0], reason="cosine 0.97")
STORE = 77
PLACE = pb.ListPlace(learned_us=1_700_000_000_000_000, trace_id=bytes(15) + b"1")
ANN = Owner("t", "ann")
CALL = Call("/ndml.v1.MemoryService/X", tenant="t")
Answer = Callable[[pb.Operation], pb.OperationResult]


class Nodes:
    """One node, n1, that answers by a function; `progress` is what a consolidation says."""

    def __init__(self, answer: Answer | None = None, progress: Sequence[memory_pb2.ConsolidateMemoriesResponse | NdmlError] = ()) -> None:
        self.answer = answer or (lambda _: pb.OperationResult())
        self.progress = progress
        self.operations: list[pb.Operation] = []
        self.consolidations: list[pb.ConsolidateRequest] = []
        self.seen: list[Seen] = []
        self.consistencies: list[int] = []
        self.closed = 0
        self.copies_each = 1
        self.profiles = frozenset({"general"})

    async def execute(
        self,
        owner: Owner,
        operation: pb.Operation,
        call: Call,
        *,
        seen: Seen = NOTHING_SEEN,
        consistency: types_pb2.Consistency = 0,  # type: ignore[assignment]
    ) -> Done:
        assert (operation.tenant, operation.user) == owner
        self.operations.append(operation)
        self.seen.append(seen)
        self.consistencies.append(consistency)
        result = self.answer(operation)
        sequence = getattr(getattr(result, result.WhichOneof("result") or "error"), "sequence", 0)
        return Done(result, {STORE: sequence} if sequence else {})

    async def execute_on_all(self, operation: pb.Operation, call: Call) -> list[tuple[str, pb.OperationResult | Exception]]:
        return [("n1", self.answer(operation)), ("n2", self.answer(operation))]

    async def export(self, owner: Owner, request: pb.ExportRequest, call: Call) -> AsyncGenerator[pb.ExportResponse, None]:
        yield pb.ExportResponse(total=0)

    async def consolidate(self, owner: Owner, request: pb.ConsolidateRequest, call: Call) -> AsyncGenerator[pb.ConsolidateResponse, None]:
        self.consolidations.append(request)
        try:
            for part in self.progress:
                if isinstance(part, NdmlError):
                    raise part
                yield pb.ConsolidateResponse(progress=part)
        finally:
            self.closed += 1


class Encoder:
    async def embed(self, texts: Sequence[str], call: Call) -> list[Embedded]:
        return [Embedded(UNIT, SIGNED) for _ in texts]


SPACE = VectorSpace("m", 2)


def service(nodes: Nodes) -> MemoryServicer:
    def now_ms() -> int:
        return NOW_S * 1000

    recall, manage = Recall(nodes, Encoder(), SPACE), Manage(nodes, Encoder(), SPACE, now_ms)
    remember, others = Remember(nodes, Encoder(), SPACE, now_ms, os.urandom), (Reinforce, Consolidate, Forget, Profile)
    return MemoryServicer(remember, recall, manage, *(each(nodes) for each in others))


def stored(operation: pb.Operation) -> pb.OperationResult:
    """Every put is new, but one whose text is "again"."""
    outcomes = []
    for trace in operation.put.traces:
        known = trace.text == "again"
        outcomes.append(pb.PutOutcome(gate=GATE, duplicate_of=IDS[0]) if known else pb.PutOutcome(gate=GATE, learned_at=trace.learned_at))
    return pb.OperationResult(put=pb.PutResult(outcomes=outcomes, sequence=9))


def field_of(error: pytest.ExceptionInfo[NdmlError]) -> str:
    return error.value.violations[0].field


def valid(message: Message) -> Any:
    """The message, as the chain lets it through."""
    ProtoValidator()(message)
    return message


# Adding


async def test_an_add_carries_its_wishes_and_brings_the_gates_decision_back() -> None:
    nodes = Nodes(stored)
    later = Timestamp(seconds=NOW_S + 1)
    memory = memory_pb2.NewMemory(scope=SCOPE, text="new", protected=True, expires_at=later)
    added = await service(nodes).AddMemory(memory_pb2.AddMemoryRequest(memory=memory, deduplicate=True), CALL)
    put = nodes.operations[0].put
    assert (put.deduplicate, put.traces[0].protected, put.traces[0].expires_at) == (True, True, later)
    assert (added.gate, added.deduplicated, added.trace_id) == (GATE, False, put.traces[0].trace_id)


@pytest.mark.parametrize(
    ("expires_s", "ttl", "ends_ms"),
    [(None, Duration(seconds=60), 60_000), (30, Duration(seconds=60), 30_000), (90, Duration(nanos=500_000_000), 500)],
)
async def test_a_time_to_live_ends_it_and_the_earlier_end_counts(expires_s: int | None, ttl: Duration, ends_ms: int) -> None:
    nodes = Nodes(stored)
    memory = memory_pb2.NewMemory(scope=SCOPE, text="new", ttl=ttl)
    if expires_s is not None:
        memory.expires_at.FromSeconds(NOW_S + expires_s)
    await service(nodes).AddMemory(memory_pb2.AddMemoryRequest(memory=memory), CALL)
    trace = nodes.operations[0].put.traces[0]
    assert trace.expires_at.ToMilliseconds() - trace.learned_at.ToMilliseconds() == ends_ms


@pytest.mark.parametrize("ttl", [Duration(), Duration(seconds=-5), Duration(seconds=200 * 366 * 86_400)])
async def test_a_time_to_live_that_is_none_is_refused(ttl: Duration) -> None:
    nodes = Nodes(stored)
    memory = memory_pb2.NewMemory(scope=SCOPE, text="new", ttl=ttl)
    with pytest.raises(FieldInvalid) as refused:
        await service(nodes).AddMemory(memory_pb2.AddMemoryRequest(memory=memory), CALL)
    assert field_of(refused) == "memory.ttl" and not nodes.operations


async def test_a_duplicate_names_the_trace_that_says_it() -> None:
    memories = [memory_pb2.NewMemory(scope=SCOPE, text=text) for text in ("new", "again")]
    one = await service(Nodes(stored)).AddMemory(memory_pb2.AddMemoryRequest(memory=memories[1], deduplicate=True), CALL)
    many = await service(Nodes(stored)).BatchAddMemories(memory_pb2.BatchAddMemoriesRequest(memories=memories, deduplicate=True), CALL)
    assert (one.trace_id, one.deduplicated, one.replayed, one.HasField("learned_at")) == (IDS[0], True, False, False)
    assert [(row.deduplicated, row.trace_id == IDS[0], row.gate) for row in many.results] == [(False, False, GATE), (True, True, GATE)]


async def test_a_replay_has_no_gate() -> None:
    nodes = Nodes(lambda _: pb.OperationResult(put=pb.PutResult(outcomes=[pb.PutOutcome(existed=True)])))
    request = memory_pb2.AddMemoryRequest(request_id="r", memory=memory_pb2.NewMemory(scope=SCOPE, text="new"))
    added = await service(nodes).AddMemory(request, CALL)
    assert added.replayed and not added.HasField("gate") and not nodes.operations[0].put.deduplicate


@pytest.mark.parametrize("seconds", [NOW_S, NOW_S - 1, -(10**12)])
async def test_what_has_expired_is_not_written(seconds: int) -> None:
    nodes = Nodes(stored)
    gone = Timestamp(seconds=seconds)
    memory = memory_pb2.NewMemory(scope=SCOPE, text="new", expires_at=gone)
    with pytest.raises(FieldInvalid) as refused:
        await service(nodes).BatchAddMemories(memory_pb2.BatchAddMemoriesRequest(memories=[memory]), CALL)
    assert field_of(refused) == "memories[0].expires_at"
    trace = types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, expires_at=gone)
    with pytest.raises(FieldInvalid) as refused:
        await service(nodes).UpdateMemory(memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=FieldMask(paths=["expires_at"])), CALL)
    assert field_of(refused) == "trace.expires_at" and not nodes.operations


async def import_one(nodes: Nodes, trace: types_pb2.MemoryTrace) -> memory_pb2.ImportMemoriesResponse:
    async def parts() -> AsyncIterator[memory_pb2.ImportMemoriesRequest]:
        yield memory_pb2.ImportMemoriesRequest(traces=[trace])

    return await service(nodes).ImportMemories(parts(), CALL)


async def test_an_import_keeps_what_was_said_of_a_trace_and_not_what_a_node_made_of_it() -> None:
    nodes = Nodes(stored)
    link = types_pb2.TraceLink(type="LINK_TYPE_SUPERSEDES", trace_id=IDS[1], weight=0.5)
    kept = types_pb2.MemoryTrace(
        trace_id=IDS[0], scope=SCOPE, text="x", salience=0.5, protected=True, expires_at=Timestamp(seconds=NOW_S - 5), links=[link]
    )
    given = types_pb2.MemoryTrace(
        gate=GATE, state="LIFECYCLE_STATE_ARCHIVED", strength=types_pb2.TraceStrength(uses=3), history=[types_pb2.TraceEvent(kind="state")]
    )
    given.siblings.add(sibling_id="a-1")
    given.MergeFrom(kept)
    assert (await import_one(nodes, given)).imported == 1
    [trace] = nodes.operations[0].put.traces
    for name in ("salience", "protected", "expires_at", "links"):
        assert getattr(trace, name) == getattr(kept, name)
    assert not {field.name for field, _ in trace.ListFields()} & {"gate", "state", "strength", "history", "siblings"}


async def added_traces(embedding: types_pb2.Embedding | None) -> list[types_pb2.MemoryTrace]:
    """What reaches the node of an add, an import and an update of one memory with this embedding."""
    nodes = Nodes(lambda operation: stored(operation) if operation.HasField("put") else pb.OperationResult())
    await service(nodes).AddMemory(
        memory_pb2.AddMemoryRequest(memory=memory_pb2.NewMemory(scope=SCOPE, text="x", embedding=embedding)), CALL
    )
    await import_one(nodes, types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, text="x", embedding=embedding))
    trace = types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, text="x", speaker="u", embedding=embedding)
    mask = FieldMask(paths=["text", "speaker", "embedding"] if embedding else ["text", "speaker"])
    await service(nodes).UpdateMemory(memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=mask), CALL)
    return [nodes.operations[0].put.traces[0], nodes.operations[1].put.traces[0], nodes.operations[-1].update.trace]


async def test_word_vectors_are_made_where_the_vector_is_made() -> None:
    for trace in await added_traces(None):
        assert (trace.embedding.vector, trace.embedding.word_vectors) == (UNIT, WORDS)


@pytest.mark.parametrize("words", [b"", b"a", bytes(range(128))])
async def test_a_callers_word_vectors_are_passed_on(words: bytes) -> None:
    for trace in await added_traces(types_pb2.Embedding(vector=UNIT, word_vectors=words)):
        assert (trace.embedding.vector, trace.embedding.word_vectors) == (UNIT, words)


@pytest.mark.parametrize("size", [129, 4096])
async def test_word_vectors_of_another_shape_are_refused(size: int) -> None:
    given = types_pb2.Embedding(vector=UNIT, word_vectors=bytes(size))
    nodes = Nodes(stored)
    memories = [memory_pb2.NewMemory(scope=SCOPE, text="x"), memory_pb2.NewMemory(scope=SCOPE, text="y", embedding=given)]
    with pytest.raises(FieldInvalid, match=f"{size} bytes") as refused:
        await service(nodes).BatchAddMemories(memory_pb2.BatchAddMemoriesRequest(memories=memories), CALL)
    assert field_of(refused) == "memories[1].embedding.word_vectors"
    trace = types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, embedding=given)
    with pytest.raises(FieldInvalid) as refused:
        await service(nodes).UpdateMemory(memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=FieldMask(paths=["embedding"])), CALL)
    assert field_of(refused) == "trace.embedding.word_vectors" and not nodes.operations
    imported = await import_one(nodes, types_pb2.MemoryTrace(scope=SCOPE, text="x", embedding=given))
    assert imported.failed == 1 and b"traces[0].embedding.word_vectors" in imported.failures[0].error.SerializeToString()


@pytest.mark.parametrize(
    ("links", "where"),
    [
        ([types_pb2.TraceLink(type=1, trace_id="A" * 32)], "[0].trace_id"),
        ([types_pb2.TraceLink(type=0, trace_id=IDS[0])], "[0].type"),
        ([types_pb2.TraceLink(type=77, trace_id=IDS[0])], "[0].type"),  # type: ignore[arg-type]
        ([types_pb2.TraceLink(type=1, trace_id=IDS[0], weight=float("nan"))], "[0].weight"),
        ([types_pb2.TraceLink(type=1, trace_id=IDS[0], evidence="é" * 513)], "[0].evidence"),
        ([types_pb2.TraceLink(type=1, trace_id=IDS[0])] * 65, ""),
    ],
)
async def test_links_that_no_node_made_are_refused(links: list[types_pb2.TraceLink], where: str) -> None:
    result = await import_one(Nodes(stored), types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, text="x", links=links))
    assert result.failed == 1 and f"traces[0].links{where}".encode() in result.failures[0].error.SerializeToString()


async def test_a_writer_links_what_it_knows_and_not_what_is_the_node_s_to_say() -> None:
    nodes = Nodes(stored)
    links = [types_pb2.TraceLink(type=name, trace_id=IDS[1], evidence="because") for name in ("LINK_TYPE_CAUSED_BY", "LINK_TYPE_ABOUT")]
    await service(nodes).AddMemory(memory_pb2.AddMemoryRequest(memory=memory_pb2.NewMemory(scope=SCOPE, text="x", links=links)), CALL)
    assert list(nodes.operations[0].put.traces[0].links) == links
    for kind in ("LINK_TYPE_DERIVED_FROM", "LINK_TYPE_DUPLICATES"):
        wrong = memory_pb2.NewMemory(scope=SCOPE, text="x", links=[types_pb2.TraceLink(type=kind, trace_id=IDS[1])])
        with pytest.raises(FieldInvalid, match="CAUSED_BY") as refused:
            await service(nodes).AddMemory(memory_pb2.AddMemoryRequest(memory=wrong), CALL)
        assert field_of(refused) == "memory.links[0].type"


# Searching


def searched(operation: pb.Operation) -> pb.OperationResult:
    queries = len(operation.search.vectors) // len(UNIT)
    return pb.OperationResult(search=pb.SearchResult(responses=[b""] * queries))


async def test_a_search_carries_weights_and_asks_for_strength() -> None:
    nodes = Nodes(searched)
    weights = types_pb2.RankingWeights(strength=0)
    await service(nodes).SearchMemories(
        memory_pb2.SearchMemoriesRequest(scope=SCOPE, text="q", weights=weights, include_strength=True), CALL
    )
    await service(nodes).SearchMemories(memory_pb2.SearchMemoriesRequest(scope=SCOPE, text="q"), CALL)
    with_weights, without = (operation.search for operation in nodes.operations)
    assert with_weights.weights == weights and with_weights.weights.HasField("strength") and with_weights.include_strength
    assert not without.HasField("weights") and not without.include_strength


async def test_searches_are_one_operation_only_where_all_but_the_query_is_alike() -> None:
    nodes = Nodes(searched)
    spread: list[dict[str, Any]] = [
        {}, {"weights": types_pb2.RankingWeights(salience=1)}, {"weights": types_pb2.RankingWeights(salience=2)},
        {"include_strength": True}, {"consistency_token": write_consistency_token({ANN: {1: 3, 2: 4}})},
    ]  # fmt: skip
    searches = [memory_pb2.SearchMemoriesRequest(scope=SCOPE, text="q", **extra) for extra in spread * 2]
    # Another spelling of the same token says the same.
    searches[-1].consistency_token = write_consistency_token({ANN: {2: 4, 1: 3}})
    await service(nodes).BatchSearchMemories(memory_pb2.BatchSearchMemoriesRequest(searches=searches), CALL)
    assert [len(operation.search.vectors) // len(UNIT) for operation in nodes.operations] == [2] * len(spread)
    assert nodes.seen == [{}] * 4 + [{1: 3, 2: 4}]
    searches[1].consistency_token = "%"
    with pytest.raises(ConsistencyTokenInvalid) as broken:
        await service(nodes).BatchSearchMemories(memory_pb2.BatchSearchMemoriesRequest(searches=searches), CALL)
    assert field_of(broken) == "searches[1].consistency_token"


@pytest.mark.parametrize("name", ["salience", "strength"])
@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.1, 10.5])
def test_a_weight_that_ranks_nothing_is_refused(name: str, weight: float) -> None:
    with pytest.raises(FieldInvalid) as refused:
        valid(memory_pb2.SearchMemoriesRequest(scope=SCOPE, text="q", weights=types_pb2.RankingWeights(**{name: weight})))
    assert field_of(refused) == f"weights.{name}"


# Feedback


def reinforced(operation: pb.Operation) -> pb.OperationResult:
    rows = [memory_pb2.ReinforceResult(trace_id=f.trace_id) for f in operation.reinforce.feedback]
    rows[-1].error.CopyFrom(error_to_status(TraceNotFound("gone")))
    return pb.OperationResult(reinforce=pb.ReinforceActionResult(results=rows, credited=4, sequence=12))


async def test_feedback_on_an_answer_is_feedback_on_what_it_cited() -> None:
    nodes = Nodes(reinforced)
    feedback = [
        memory_pb2.Feedback(trace_id=IDS[5], grade=-1),
        memory_pb2.Feedback(answer_id=write_answer_id(IDS[:2]), grade=0.5),
        memory_pb2.Feedback(trace_id=IDS[0], grade=1),
    ]
    spread = memory_pb2.CreditSpread(clock="CREDIT_CLOCK_SECONDS", tau_before=3)
    request = memory_pb2.ReinforceMemoriesRequest(request_id="r", scope=SCOPE, feedback=feedback, spread=spread)
    response = await service(nodes).ReinforceMemories(valid(request), Call("/x", tenant="t", traceparent="00-traced"))
    assert nodes.operations[0].traceparent == "00-traced"
    action = nodes.operations[0].reinforce
    assert [(f.trace_id, f.grade) for f in action.feedback] == [(IDS[5], -1), (IDS[0], 0.5), (IDS[1], 0.5), (IDS[0], 1)]
    assert action.spread == spread and action.request_digest == request_digest(Owner("t", "ann"), "r")
    assert [row.HasField("error") for row in response.results] == [False, False, False, True]
    assert (response.credited, read_consistency_token(response.consistency_token, ANN)) == (4, {STORE: 12})


async def test_feedback_without_request_id_or_spread_says_so() -> None:
    nodes = Nodes(reinforced)
    await service(nodes).ReinforceMemories(
        memory_pb2.ReinforceMemoriesRequest(scope=SCOPE, feedback=[memory_pb2.Feedback(trace_id=IDS[0], grade=1)]), CALL
    )
    action = nodes.operations[0].reinforce
    assert action.request_digest == b"" and not action.HasField("spread")


async def test_feedback_that_changed_nothing_gives_no_token() -> None:
    nodes = Nodes(lambda _: pb.OperationResult(reinforce=pb.ReinforceActionResult(replayed=True)))
    request = memory_pb2.ReinforceMemoriesRequest(request_id="r", scope=SCOPE, feedback=[memory_pb2.Feedback(trace_id=IDS[0])])
    response = await service(nodes).ReinforceMemories(request, CALL)
    assert (response.replayed, response.consistency_token) == (True, "")


@pytest.mark.parametrize("grade", [float("nan"), 1.01, -1.01, float("inf")])
def test_a_grade_outside_its_scale_is_refused(grade: float) -> None:
    feedback = [memory_pb2.Feedback(trace_id=IDS[0], grade=1), memory_pb2.Feedback(trace_id=IDS[0], grade=grade)]
    with pytest.raises(FieldInvalid) as refused:
        valid(memory_pb2.ReinforceMemoriesRequest(scope=SCOPE, feedback=feedback))
    assert field_of(refused) == "feedback[1].grade"


async def test_a_broken_answer_id_and_too_many_traces_reach_no_node() -> None:
    nodes = Nodes(reinforced)
    broken = [memory_pb2.Feedback(trace_id=IDS[0], grade=1), memory_pb2.Feedback(answer_id="AQ", grade=1)]
    with pytest.raises(FieldInvalid) as refused:
        await service(nodes).ReinforceMemories(memory_pb2.ReinforceMemoriesRequest(scope=SCOPE, feedback=broken), CALL)
    assert field_of(refused) == "feedback[1].answer_id"
    whole = memory_pb2.Feedback(answer_id=write_answer_id(IDS[:50]), grade=1)
    fits, left = divmod(MAX_GRADED, 50)
    at_limit = [whole] * fits + [memory_pb2.Feedback(trace_id=IDS[0], grade=1)] * left
    with pytest.raises(FieldInvalid) as refused:
        await service(nodes).ReinforceMemories(memory_pb2.ReinforceMemoriesRequest(scope=SCOPE, feedback=[*at_limit, whole]), CALL)
    assert field_of(refused) == "feedback" and not nodes.operations
    response = await service(nodes).ReinforceMemories(valid(memory_pb2.ReinforceMemoriesRequest(scope=SCOPE, feedback=at_limit)), CALL)
    assert len(response.results) == MAX_GRADED


# Consolidation

STEPS = [
    memory_pb2.ConsolidateMemoriesResponse(clusters_total=2, clusters_done=1, merged=1, semantic_trace_ids=[IDS[0]]),
    memory_pb2.ConsolidateMemoriesResponse(clusters_total=2, clusters_done=2, merged=1, rejected=1, done=True),
]


async def test_progress_is_passed_on_as_it_comes() -> None:
    nodes = Nodes(progress=STEPS)
    request = memory_pb2.ConsolidateMemoriesRequest(scope=SCOPE, max_traces=7, dry_run=True, time_budget=Duration(seconds=1, nanos=1))
    assert [part async for part in service(nodes).ConsolidateMemories(valid(request), CALL)] == STEPS
    assert nodes.consolidations == [pb.ConsolidateRequest(tenant="t", user="ann", max_traces=7, time_budget_ms=1000, dry_run=True)]
    bare = memory_pb2.ConsolidateMemoriesRequest(scope=SCOPE)
    assert [part async for part in service(nodes).ConsolidateMemories(bare, CALL)] == STEPS
    assert nodes.consolidations[1].time_budget_ms == 0


async def test_a_caller_that_leaves_ends_the_nodes_work() -> None:
    nodes = Nodes(progress=STEPS)
    async with aclosing(Consolidate(nodes).consolidate(memory_pb2.ConsolidateMemoriesRequest(scope=SCOPE), CALL)) as parts:
        assert await anext(parts) == STEPS[0]
        assert nodes.closed == 0
    assert nodes.closed == 1


async def test_a_node_that_goes_away_is_said() -> None:
    nodes = Nodes(progress=[STEPS[0], OwnerUnavailable("n1 does not answer")])
    seen = []
    with pytest.raises(OwnerUnavailable):
        async for part in service(nodes).ConsolidateMemories(memory_pb2.ConsolidateMemoriesRequest(scope=SCOPE), CALL):
            seen.append(part)
    assert seen == STEPS[:1]


@pytest.mark.parametrize("budget", [Duration(), Duration(seconds=-1), Duration(seconds=86_401), Duration(seconds=1, nanos=10**9)])
async def test_a_budget_must_be_a_time_to_work_in(budget: Duration) -> None:
    nodes = Nodes(progress=STEPS)
    with pytest.raises(FieldInvalid) as refused:
        await anext(service(nodes).ConsolidateMemories(memory_pb2.ConsolidateMemoriesRequest(scope=SCOPE, time_budget=budget), CALL))
    assert field_of(refused) == "time_budget" and not nodes.consolidations


async def test_a_consolidation_is_of_one_user() -> None:
    with pytest.raises(FieldInvalid) as refused:
        await anext(service(Nodes()).ConsolidateMemories(memory_pb2.ConsolidateMemoriesRequest(scope=types_pb2.Scope()), CALL))
    assert field_of(refused) == "scope.user"


# Single traces and pages


async def test_get_asks_for_what_is_wanted() -> None:
    nodes = Nodes()
    await service(nodes).GetMemory(memory_pb2.GetMemoryRequest(scope=SCOPE, trace_id=IDS[0], include_history=True), CALL)
    await service(nodes).GetMemory(memory_pb2.GetMemoryRequest(scope=SCOPE, trace_id=IDS[0], include_strength=True), CALL)
    assert [(o.get.include_strength, o.get.include_history) for o in nodes.operations] == [(False, True), (True, False)]


async def test_a_page_with_archived_traces_is_of_another_query() -> None:
    nodes = Nodes(lambda _: pb.OperationResult(list=pb.ListResult(next=PLACE)))
    first = await service(nodes).ListMemories(memory_pb2.ListMemoriesRequest(scope=SCOPE, include_archived=True), CALL)
    follow = memory_pb2.ListMemoriesRequest(scope=SCOPE, include_archived=True, page_token=first.next_page_token)
    await service(nodes).ListMemories(follow, CALL)
    assert [(o.list.include_archived, o.list.before) for o in nodes.operations] == [(True, pb.ListPlace()), (True, PLACE)]
    follow.include_archived = False
    with pytest.raises(PageTokenInvalid):
        await service(nodes).ListMemories(follow, CALL)


async def test_an_update_protects_and_sets_or_clears_an_end() -> None:
    nodes = Nodes()
    mask = FieldMask(paths=["protected", "expires_at"])
    trace = types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, protected=True, expires_at=Timestamp(seconds=NOW_S + 60))
    await service(nodes).UpdateMemory(memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=mask), CALL)
    trace.ClearField("expires_at")
    await service(nodes).UpdateMemory(memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=mask), CALL)
    first, second = (operation.update for operation in nodes.operations)
    assert list(first.fields) == ["protected", "expires_at"] and first.trace.expires_at.seconds == NOW_S + 60
    assert second.trace.protected and not second.trace.HasField("expires_at")


@pytest.mark.parametrize("name", ["gate", "state", "strength", "history", "links"])
async def test_what_the_node_says_of_a_trace_is_not_the_callers_to_change(name: str) -> None:
    trace = types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE)
    with pytest.raises(FieldInvalid) as refused:
        await service(Nodes()).UpdateMemory(memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=FieldMask(paths=[name])), CALL)
    assert field_of(refused) == "update_mask"
