"""The way to the nodes' replication doors, and writes to several of them, against real gRPC servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from ndml.errors import FieldInvalid, Overloaded, OwnerUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import memory_node_pb2_grpc as pb_grpc
from ndml.internal.v1 import replication_pb2 as rep
from ndml.internal.v1 import replication_pb2_grpc as rep_grpc
from ndml.placement import MemberState, NodeRecord, Placement, PlacementNode
from ndml.runtime.call import Call
from ndml.runtime.channel import Dialer
from ndml.v1 import admin_pb2, types_pb2
from ndml.wire import error_to_status, to_grpc_status
from services.gateway.remotes import MemoryNodes, StoreRemote
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings, QuorumSettings
from tests.unit.gateway.replicas import Copy, put, trace_of

OWNER = Owner("t", "ann")


class Door(rep_grpc.ReplicationServiceServicer):
    def __init__(self) -> None:
        self.pushed: list[rep.PushRecordsRequest] = []
        self.held = asyncio.Event()

    async def ListOwners(self, request: rep.ListOwnersRequest, context: Any) -> AsyncIterator[rep.ListOwnersResponse]:
        for bucket in request.buckets:
            yield rep.ListOwnersResponse(owners=[rep.OwnerState(tenant="t", user=f"u{bucket}", records=bucket)])

    async def FetchRecords(self, request: rep.FetchRecordsRequest, context: Any) -> AsyncIterator[rep.FetchRecordsResponse]:
        if request.user == "busy":
            await context.abort_with_status(to_grpc_status(Overloaded("two are served already")))
        if request.user == "silent":
            await self.held.wait()
        if request.all:
            yield rep.FetchRecordsResponse(records=[rep.TraceRecord(trace_id=bytes(16))] * 2)
        yield rep.FetchRecordsResponse(owner=rep.OwnerState(tenant=request.tenant, user=request.user, digest=b"d" * 16, records=2))

    async def PushRecords(self, requests: AsyncIterator[rep.PushRecordsRequest], context: Any) -> AsyncIterator[rep.PushRecordsResponse]:
        async for request in requests:
            self.pushed.append(request)
            yield rep.PushRecordsResponse(changed=len(request.records))

    async def SetPhase(self, request: rep.SetPhaseRequest, context: Any) -> rep.SetPhaseResponse:
        if request.phase == admin_pb2.MEMBER_PHASE_LEFT:
            await context.abort_with_status(to_grpc_status(FieldInvalid("leaving comes first", field="phase")))
        return rep.SetPhaseResponse(phase=request.phase)


class Node(pb_grpc.MemoryNodeServiceServicer):
    def __init__(self, copy: Copy) -> None:
        self.copy = copy

    async def Execute(self, requests: AsyncIterator[pb.ExecuteRequest], context: Any) -> AsyncIterator[pb.ExecuteResponse]:
        async for request in requests:
            results = [self._result(operation) for operation in request.operations]
            yield pb.ExecuteResponse(batch_id=request.batch_id, results=results, replica=self.copy.replica)

    def _result(self, operation: pb.Operation) -> pb.OperationResult:
        try:
            return self.copy.execute(operation)
        except OwnerUnavailable as error:
            return pb.OperationResult(error=error_to_status(error))


@asynccontextmanager
async def serving(add: Any, servicer: Any) -> AsyncIterator[tuple[int, grpc.aio.Server]]:
    server = grpc.aio.server()
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, server
    finally:
        await server.stop(0)


def node_at(port: int, number: int = 0) -> PlacementNode:
    return PlacementNode(NodeRecord(f"n{number}", f"127.0.0.1:{port}" if port else "", "", "general", 1), MemberState.ALIVE)


async def test_what_the_replication_door_says_arrives() -> None:
    door = Door()
    async with serving(rep_grpc.add_ReplicationServiceServicer_to_server, door) as (port, _):
        node, stores = node_at(port), StoreRemote(Dialer(), call_s=5.0)
        assert [state.user async for state in stores.owners(node, range(2, 4))] == ["u2", "u3"]
        assert [len(records) async for records in stores.records(node, OWNER)] == [2]
        assert (await stores.state(node, OWNER)).digest == b"d" * 16
        assert await stores.push(node, OWNER, [rep.TraceRecord(trace_id=bytes(16))]) == 1
        assert (door.pushed[0].tenant, door.pushed[0].user, len(door.pushed)) == ("t", "ann", 1)
        assert await stores.set_phase(node, admin_pb2.MEMBER_PHASE_LEAVING) == admin_pb2.MEMBER_PHASE_LEAVING
        with pytest.raises(FieldInvalid, match="leaving comes first"):
            await stores.set_phase(node, admin_pb2.MEMBER_PHASE_LEFT)
        with pytest.raises(Overloaded):
            await stores.state(node, Owner("t", "busy"))
        await stores.stop()


async def test_a_door_that_is_silent_or_gone_is_unavailable() -> None:
    door = Door()
    async with serving(rep_grpc.add_ReplicationServiceServicer_to_server, door) as (port, _):
        stores = StoreRemote(Dialer(), call_s=0.1)
        with pytest.raises(OwnerUnavailable, match="has said nothing"):
            await stores.state(node_at(port), Owner("t", "silent"))
    with pytest.raises(OwnerUnavailable, match="n0"):
        await stores.push(node_at(port), OWNER, [])
    with pytest.raises(OwnerUnavailable, match="registered"):
        await stores.state(node_at(0), OWNER)
    await stores.stop()


async def test_three_nodes_take_a_write_and_two_carry_on() -> None:
    copies = [Copy(f"n{i}", 100 + i) for i in range(3)]
    add = pb_grpc.add_MemoryNodeServiceServicer_to_server
    async with serving(add, Node(copies[0])) as one, serving(add, Node(copies[1])) as two, serving(add, Node(copies[2])) as three:
        members = [node_at(port, number) for number, (port, _) in enumerate((one, two, three))]
        placement = Placement(members, 3)
        first = placement.owners(*OWNER)[0].node_id

        class Placed:
            epoch = placement.epoch

            def __init__(self) -> None:
                self.placement: Placement | None = placement

            def owners(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
                return placement.owners(tenant, user)

            def copies(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
                return placement.copies(tenant, user)

            async def wait_newer(self, epoch: int, timeout_s: float) -> bool:
                return False

        nodes = MemoryNodes(Dialer(), Placed(), LinkSettings(retry_backoff_s=0.01), QuorumSettings())
        call = Call("/t/T")
        done = await nodes.execute(OWNER, put(trace_of(1)), call, consistency=types_pb2.CONSISTENCY_ALL)
        assert all(copy.heads == done.seen for copy in copies) and nodes.copies_each == 3
        await {"n0": one, "n1": two, "n2": three}[first][1].stop(0)
        again = await nodes.execute(OWNER, put(trace_of(2)), call)
        alive = [copy for copy in copies if copy.node_id != first]
        assert sum(copy.has(trace_of(2).trace_id) for copy in alive) == 2 and again.seen != done.seen
        get = pb.Operation(tenant="t", user="ann", get=pb.GetAction(trace_id=trace_of(2).trace_id))
        for word in (types_pb2.CONSISTENCY_ONE, types_pb2.CONSISTENCY_QUORUM):
            read = await nodes.execute(OWNER, get, call, seen=again.seen, consistency=word)
            assert read.result.trace.trace.trace_id == trace_of(2).trace_id
        with pytest.raises(OwnerUnavailable, match="fewer than 3 of 3"):
            await nodes.execute(OWNER, get, call, consistency=types_pb2.CONSISTENCY_ALL)
        await nodes.stop()
