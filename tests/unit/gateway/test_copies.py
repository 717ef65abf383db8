"""What the API makes of several copies: counts are of traces, and every call passes its consistency on."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2, types_pb2
from tests.unit.gateway.test_memory_service import CALL, IDS, SCOPE, Nodes, service, stored


async def test_a_tenants_count_is_of_traces_and_not_of_their_copies() -> None:
    answer = pb.OperationResult(stats=memory_pb2.GetMemoryStatsResponse(traces=20, owners=4, traces_by_kind={"episodic": 20}))
    nodes = Nodes(lambda _: answer)  # two members, each with all of it
    nodes.copies_each = 2
    whole = await service(nodes).GetMemoryStats(memory_pb2.GetMemoryStatsRequest(), CALL)
    assert (whole.traces, whole.owners, dict(whole.traces_by_kind)) == (20, 4, {"episodic": 20})
    nodes.copies_each = 1
    apart = await service(nodes).GetMemoryStats(memory_pb2.GetMemoryStatsRequest(), CALL)
    assert (apart.traces, apart.owners) == (40, 8)


async def test_every_call_says_its_consistency_to_the_nodes() -> None:
    def answer(operation: pb.Operation) -> pb.OperationResult:
        if operation.HasField("put"):
            return stored(operation)
        if operation.HasField("search"):
            return pb.OperationResult(search=pb.SearchResult(responses=[b""]))
        return pb.OperationResult(delete=pb.DeleteResult(deleted=True))

    nodes = Nodes(answer)
    word = types_pb2.CONSISTENCY_ALL
    memory, trace = memory_pb2.NewMemory(scope=SCOPE, text="new"), types_pb2.MemoryTrace(trace_id=IDS[0], scope=SCOPE, protected=True)
    api, named = service(nodes), {"scope": SCOPE, "trace_id": IDS[0], "consistency": word}
    await api.AddMemory(memory_pb2.AddMemoryRequest(memory=memory, consistency=word), CALL)
    await api.BatchAddMemories(memory_pb2.BatchAddMemoriesRequest(memories=[memory], consistency=word), CALL)
    await api.GetMemory(memory_pb2.GetMemoryRequest(**named), CALL)  # type: ignore[arg-type]
    await api.ListMemories(memory_pb2.ListMemoriesRequest(scope=SCOPE, consistency=word), CALL)
    await api.SearchMemories(memory_pb2.SearchMemoriesRequest(scope=SCOPE, text="x", consistency=word), CALL)
    update = memory_pb2.UpdateMemoryRequest(trace=trace, update_mask=FieldMask(paths=["protected"]), consistency=word)
    await api.UpdateMemory(update, CALL)
    await api.DeleteMemory(memory_pb2.DeleteMemoryRequest(**named), CALL)  # type: ignore[arg-type]
    await api.ResolveConflict(memory_pb2.ResolveConflictRequest(**named, sibling_id="a-1"), CALL)  # type: ignore[arg-type]
    feedback = [memory_pb2.Feedback(trace_id=IDS[0], grade=1)]
    await api.ReinforceMemories(memory_pb2.ReinforceMemoriesRequest(scope=SCOPE, feedback=feedback, consistency=word), CALL)
    assert nodes.consistencies == [word] * 9
    assert nodes.operations[7].resolve == pb.ResolveAction(trace_id=IDS[0], sibling_id="a-1")


async def test_archived_traces_are_counted_over_the_nodes() -> None:
    nodes = Nodes(lambda _: pb.OperationResult(stats=memory_pb2.GetMemoryStatsResponse(archived_traces=3)))
    assert (await service(nodes).GetMemoryStats(memory_pb2.GetMemoryStatsRequest(scope=SCOPE), CALL)).archived_traces == 3
    assert (await service(nodes).GetMemoryStats(memory_pb2.GetMemoryStatsRequest(), CALL)).archived_traces == 6
