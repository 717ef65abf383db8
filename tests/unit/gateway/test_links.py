"""Lanes and owner routing against real gRPC servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from ndml.errors import DeadlinePassed, Overloaded, OwnerUnavailable, StaleEpoch
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import memory_node_pb2_grpc as pb_grpc
from ndml.placement import MemberState, NodeRecord, Placement, PlacementNode
from ndml.runtime.call import Call
from ndml.runtime.channel import Dialer
from ndml.v1 import memory_pb2
from ndml.wire import error_to_status, to_grpc_status
from services.gateway.links import Lane
from services.gateway.remotes import MemoryNodes
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings, QuorumSettings

OWNER = Owner("t", "u")


class Node(pb_grpc.MemoryNodeServiceServicer):
    """Answers each get with its own trace id, by batch; refuses epochs below `epoch`; `gate` holds answers back."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.epoch = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.streams: list[Any] = []
        self.left = asyncio.Event()
        self.loses = 0

    async def Consolidate(self, request: pb.ConsolidateRequest, context: Any) -> AsyncIterator[pb.ConsolidateResponse]:
        self.streams.append(request)
        self.metadata = dict(context.invocation_metadata())
        if request.epoch < self.epoch:
            await context.abort_with_status(to_grpc_status(StaleEpoch("too old")))
        try:
            yield pb.ConsolidateResponse(progress=memory_pb2.ConsolidateMemoriesResponse(clusters_done=1))
            await self.gate.wait()
            yield pb.ConsolidateResponse(progress=memory_pb2.ConsolidateMemoriesResponse(clusters_done=2, done=True))
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def Execute(self, requests: AsyncIterator[pb.ExecuteRequest], context: Any) -> AsyncIterator[pb.ExecuteResponse]:
        async for request in requests:
            self.batches.append(len(request.operations))
            await self.gate.wait()
            if self.loses:
                self.loses -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            results = [self._result(request.epoch, operation) for operation in request.operations]
            yield pb.ExecuteResponse(batch_id=request.batch_id, results=results)

    def _result(self, epoch: int, operation: pb.Operation) -> pb.OperationResult:
        if epoch < self.epoch:
            return pb.OperationResult(error=error_to_status(StaleEpoch(f"epoch {epoch} is older than {self.epoch}")))
        if operation.HasField("reinforce"):
            return pb.OperationResult(reinforce=pb.ReinforceActionResult(credited=1))
        if operation.HasField("stats"):
            return pb.OperationResult(stats=memory_pb2.GetMemoryStatsResponse(traces=1))
        result = pb.OperationResult()
        result.trace.trace.trace_id = operation.get.trace_id
        return result


@asynccontextmanager
async def serving(node: Node, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server()
    pb_grpc.add_MemoryNodeServiceServicer_to_server(node, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0)


class Placements:
    """A placement that the test moves."""

    def __init__(self, *ports: int) -> None:
        self.set(1, *ports)

    def set(self, incarnation: int, *ports: int) -> None:
        records = [NodeRecord(f"n{i}", f"127.0.0.1:{port}", "", "general", incarnation) for i, port in enumerate(ports)]
        self.placement: Placement | None = Placement([PlacementNode(r, MemberState.ALIVE) for r in records], 1)

    @property
    def epoch(self) -> int:
        return 0 if self.placement is None else self.placement.epoch

    def owners(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        assert self.placement is not None
        return self.placement.owners(tenant, user)

    def copies(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        assert self.placement is not None
        return self.placement.copies(tenant, user)

    async def wait_newer(self, epoch: int, timeout_s: float) -> bool:
        await asyncio.sleep(0.01)
        return self.epoch > epoch


def _get(number: int) -> pb.Operation:
    return pb.Operation(tenant="t", user="u", get=pb.GetAction(trace_id=f"{number:032x}"))


def _call(deadline: float | None = None) -> Call:
    return Call("/t/T", deadline=deadline)


async def _lane(port: int, **changes: int) -> tuple[Lane, grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    stub: pb_grpc.MemoryNodeServiceAsyncStub = pb_grpc.MemoryNodeServiceStub(channel)
    return Lane("n", stub, lambda: 1, LinkSettings(**changes)), channel


async def test_answers_find_their_callers_and_batches_form_while_the_node_works() -> None:
    node = Node()
    async with serving(node) as port:
        lane, channel = await _lane(port, max_in_flight=1)
        results = await asyncio.gather(*(lane.submit(_get(i), None) for i in range(500)))
        assert [int(r.result.trace.trace.trace_id, 16) for r in results] == list(range(500))
        assert sum(node.batches) == 500
        assert len(node.batches) < 50
        await lane.close()
        await channel.close()


async def test_full_lane_is_overload_and_late_callers_are_not_sent() -> None:
    node = Node()
    node.gate.clear()
    async with serving(node) as port:
        lane, channel = await _lane(port, max_in_flight=1, max_queued=4)
        first = asyncio.create_task(lane.submit(_get(0), None))
        while not node.batches:
            await asyncio.sleep(0.005)
        late = asyncio.create_task(lane.submit(_get(1), asyncio.get_running_loop().time()))
        rest = [asyncio.create_task(lane.submit(_get(i), None)) for i in range(2, 5)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await lane.submit(_get(9), None)
        rest[0].cancel()
        node.gate.set()
        assert (await first).result.trace.trace.trace_id == f"{0:032x}"
        with pytest.raises(DeadlinePassed):
            await late
        assert [(await task).result.trace.trace.trace_id for task in rest[1:]] == [f"{3:032x}", f"{4:032x}"]
        assert node.batches == [1, 2]
        await lane.close()
        await channel.close()


async def test_a_node_that_goes_away_and_comes_back() -> None:
    node = Node()
    async with serving(node) as port:
        nodes = MemoryNodes(Dialer(), Placements(port), LinkSettings(attempts=8, retry_backoff_s=0.05), QuorumSettings())
        assert (await nodes.execute(OWNER, _get(1), _call())).result.trace.trace.trace_id == f"{1:032x}"
    waiting = asyncio.create_task(nodes.execute(OWNER, _get(2), _call()))
    await asyncio.sleep(0.1)
    async with serving(Node(), port):
        assert (await waiting).result.trace.trace.trace_id == f"{2:032x}"
    await nodes.stop()


async def test_a_node_that_stays_away_is_unavailable_within_its_tries() -> None:
    async with serving(Node()) as port:
        pass
    nodes = MemoryNodes(Dialer(), Placements(port), LinkSettings(attempts=2, retry_backoff_s=0.01), QuorumSettings())
    with pytest.raises(OwnerUnavailable) as caught:
        await nodes.execute(OWNER, _get(1), _call())
    assert caught.value.retry_after_s is not None
    await nodes.stop()


async def test_a_stale_epoch_is_refreshed_and_tried_again_as_often_as_there_are_attempts() -> None:
    node = Node()
    async with serving(node) as port:
        placements = Placements(port)
        nodes = MemoryNodes(Dialer(), placements, LinkSettings(stale_wait_s=0.1, attempts=2), QuorumSettings())
        node.epoch = 2
        refused = asyncio.create_task(nodes.execute(OWNER, _get(1), _call()))
        placements.set(2, port)
        assert (await refused).result.trace.trace.trace_id == f"{1:032x}"
        node.epoch = 99
        sent = len(node.batches)
        with pytest.raises(StaleEpoch):
            await nodes.execute(OWNER, _get(1), _call())
        assert len(node.batches) - sent == 3
        await nodes.stop()


@pytest.mark.parametrize(("digest", "batches"), [(b"", 1), (b"d" * 16, 3)])
async def test_feedback_is_sent_again_only_where_the_node_would_know_it(digest: bytes, batches: int) -> None:
    node = Node()
    node.loses = 2
    reinforce = pb.Operation(tenant="t", user="u", reinforce=pb.ReinforceAction(request_digest=digest))
    async with serving(node) as port:
        nodes = MemoryNodes(Dialer(), Placements(port), LinkSettings(attempts=3, retry_backoff_s=0.01), QuorumSettings())
        if digest:
            assert (await nodes.execute(OWNER, reinforce, _call())).result.reinforce.credited == 1
        else:
            with pytest.raises(OwnerUnavailable):
                await nodes.execute(OWNER, reinforce, _call())
        assert len(node.batches) == batches
        await nodes.stop()


async def _progress(nodes: MemoryNodes) -> list[int]:
    request = pb.ConsolidateRequest(tenant="t", user="u")
    return [part.progress.clusters_done async for part in nodes.consolidate(OWNER, request, _call())]


async def test_a_consolidation_streams_and_a_stale_epoch_is_refreshed() -> None:
    node = Node()
    async with serving(node) as port:
        placements = Placements(port)
        nodes = MemoryNodes(Dialer(), placements, LinkSettings(stale_wait_s=0.1, attempts=2), QuorumSettings())
        assert await _progress(nodes) == [1, 2] and "traceparent" not in node.metadata
        traced = nodes.consolidate(OWNER, pb.ConsolidateRequest(), Call("/t/T", traceparent="00-traced"))
        assert len([part async for part in traced]) == 2 and node.metadata["traceparent"] == "00-traced"
        node.epoch = 2
        refused = asyncio.create_task(_progress(nodes))
        placements.set(2, port)
        assert await refused == [1, 2]
        node.epoch = 99
        sent = len(node.streams)
        with pytest.raises(StaleEpoch):
            await _progress(nodes)
        assert len(node.streams) - sent == 3
        await nodes.stop()


async def test_who_stops_listening_to_a_consolidation_stops_it() -> None:
    node = Node()
    node.gate.clear()
    async with serving(node) as port:
        nodes = MemoryNodes(Dialer(), Placements(port), LinkSettings(), QuorumSettings())
        parts = nodes.consolidate(OWNER, pb.ConsolidateRequest(tenant="t", user="u"), _call())
        assert (await anext(parts)).progress.clusters_done == 1
        assert not node.left.is_set()
        await parts.aclose()
        await asyncio.wait_for(node.left.wait(), 10)
        waiting = asyncio.create_task(_progress(nodes))
        while len(node.streams) < 2:
            await asyncio.sleep(0.005)
        node.left.clear()
        waiting.cancel()
        await asyncio.wait_for(node.left.wait(), 10)
        await nodes.stop()


async def test_a_consolidation_whose_node_is_away_names_it() -> None:
    async with serving(Node()) as port:
        pass
    nodes = MemoryNodes(Dialer(), Placements(port), LinkSettings(), QuorumSettings())
    with pytest.raises(OwnerUnavailable, match="n0"):
        await _progress(nodes)
    await nodes.stop()


async def test_every_member_is_asked_and_the_dead_one_is_an_error_among_answers() -> None:
    async with serving(Node()) as alive, serving(Node()) as dying:
        placements = Placements(alive, dying)
        nodes = MemoryNodes(Dialer(), placements, LinkSettings(), QuorumSettings())
        stats = pb.Operation(tenant="t", stats=pb.StatsAction())
        both = await nodes.execute_on_all(stats, _call())
        assert [result.stats.traces for _, result in both if isinstance(result, pb.OperationResult)] == [1, 1]
    async with serving(Node(), alive):
        for _ in range(20):  # the link notices the restart with its next operation
            answers = dict(await nodes.execute_on_all(stats, _call()))
            if isinstance(answers["n0"], pb.OperationResult):
                break
            await asyncio.sleep(0.05)
        assert isinstance(answers["n0"], pb.OperationResult)
        assert isinstance(answers["n1"], OwnerUnavailable)
    await nodes.stop()
