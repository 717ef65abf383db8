"""ForgetScope: what is asked of the nodes, how far it walks, when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from ndml.errors import FieldInvalid, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2, types_pb2
from tests.unit.gateway.test_memory_service import CALL, IDS, PLACE, SCOPE, Nodes, field_of, service, valid


class Shelf:
    """A node's list: `page` traces at a time, of which `stuck` cannot be deleted; `hidden` pages come empty, with a place to go on from."""

    def __init__(self, traces: int, page: int = 3, hidden: int = 0, stuck: int = 0) -> None:
        self.left = IDS[:traces]
        self.page, self.hidden, self.stuck = page, hidden, set(IDS[:stuck])

    def __call__(self, operation: pb.Operation) -> pb.OperationResult:
        if operation.HasField("delete"):
            there = operation.delete.trace_id in self.left and operation.delete.trace_id not in self.stuck
            self.left = [one for one in self.left if one != operation.delete.trace_id or not there]
            return pb.OperationResult(delete=pb.DeleteResult(deleted=there))
        if self.hidden:
            self.hidden -= 1
            return pb.OperationResult(list=pb.ListResult(next=PLACE))
        shown = [types_pb2.MemoryTrace(trace_id=trace_id) for trace_id in self.left[: self.page]]
        return pb.OperationResult(list=pb.ListResult(traces=shown, next=PLACE if len(self.left) > self.page else None))


async def forgotten(nodes: Nodes, **fields: Any) -> list[memory_pb2.ForgetScopeResponse]:
    request = valid(memory_pb2.ForgetScopeRequest(scope=SCOPE, **fields))
    return [part async for part in service(nodes).ForgetScope(request, CALL)]


@pytest.mark.parametrize("hidden", [0, 1])
async def test_a_scope_is_erased_until_a_walk_over_it_meets_nothing(hidden: int) -> None:
    nodes = Nodes(shelf := Shelf(8, hidden=hidden))
    parts = await forgotten(nodes)
    assert [(part.erased, part.done) for part in parts] == [(3, False), (6, False), (8, False), (8, True)] and not shelf.left
    lists = [operation.list for operation in nodes.operations if operation.HasField("list")]
    assert all(one.include_archived for one in lists) and not lists[-1].before.trace_id, "the last walk begins at the first place"
    kinds = {(op.WhichOneof("action"), consistency) for op, consistency in zip(nodes.operations, nodes.consistencies, strict=True)}
    assert kinds == {("list", types_pb2.CONSISTENCY_QUORUM), ("delete", types_pb2.CONSISTENCY_UNSPECIFIED)}


async def test_an_empty_scope_is_erased_at_once_and_a_narrow_one_is_asked_for() -> None:
    nodes = Nodes(Shelf(0))
    scope = types_pb2.Scope(user="ann", agent="a", session="s")
    [only] = [part async for part in service(nodes).ForgetScope(valid(memory_pb2.ForgetScopeRequest(scope=scope)), CALL)]
    assert (only.erased, only.done) == (0, True)
    [asked] = nodes.operations
    assert (asked.list.agent, asked.list.session) == ("a", "s")
    with pytest.raises(FieldInvalid) as refused:
        _ = [part async for part in service(nodes).ForgetScope(memory_pb2.ForgetScopeRequest(), CALL)]
    assert field_of(refused) == "scope.user"


async def test_what_is_listed_and_cannot_be_deleted_ends_the_call() -> None:
    nodes = Nodes(Shelf(5, page=5, stuck=2))
    parts: list[memory_pb2.ForgetScopeResponse] = []
    with pytest.raises(Overloaded, match="2 traces are listed"):
        async for part in service(nodes).ForgetScope(valid(memory_pb2.ForgetScopeRequest(scope=SCOPE)), CALL):
            parts.append(part)
    assert parts[0].erased == 3 and not any(part.done for part in parts)


async def test_a_scope_that_is_written_to_all_the_while_ends_the_call() -> None:
    shelf = Shelf(2)

    def written_to(operation: pb.Operation) -> pb.OperationResult:
        answer = shelf(operation)
        shelf.left = shelf.left or IDS[:1]
        return answer

    parts: list[memory_pb2.ForgetScopeResponse] = []
    with pytest.raises(Overloaded, match="written to faster"):
        async for part in service(Nodes(written_to)).ForgetScope(valid(memory_pb2.ForgetScopeRequest(scope=SCOPE)), CALL):
            parts.append(part)
    assert len(parts) == 100 and not any(part.done for part in parts)
