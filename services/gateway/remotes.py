"""The gateway's network: memory nodes by owner, the llm service, and the status calls. Nothing else in this package opens a connection."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from ndml.errors import (
    DeadlinePassed,
    Draining,
    ModelNotConfigured,
    ModelUnavailable,
    NdmlError,
    Overloaded,
    OwnerUnavailable,
    StaleEpoch,
    Unavailable,
)
from ndml.internal.v1 import (
    consensus_pb2,
    consensus_pb2_grpc,
    llm_pb2,
    llm_pb2_grpc,
    memory_node_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
)
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.placement import MemberPhase, PlacementNode
from ndml.runtime import metrics
from ndml.runtime.call import Call
from ndml.runtime.channel import Dialer, LatencyWindow, hedged
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.telemetry import TraceMetadata, metadata_of, trace_metadata
from ndml.v1 import admin_pb2, types_pb2
from ndml.wire import rpc_error_to_ndml, status_to_error
from services.gateway.links import NodeLink
from services.gateway.liveness import Liveness
from services.gateway.ports import NOTHING_SEEN, Copies, Done, Embedded, Seen, Sent
from services.gateway.quorum import Quorum
from services.gateway.reads import Reads
from services.gateway.replicas import Replicas
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings, QuorumSettings
from services.gateway.tokens import tell_seen
from services.gateway.vectors import VectorSpace

R = TypeVar("R")

_WRITES = frozenset({"put", "update", "delete", "reinforce", "resolve"})
_STATUS_TIMEOUT_S = 2.0
_SNAPSHOT_TIMEOUT_S = 600.0
_NOTHING_DONE = (OwnerUnavailable, Draining, Overloaded)
"""What an llm service says that has not begun: another one may."""


class MemoryNodes:
    """Fulfils `ports.Nodes` and `ports.Lanes`: keeps a link to each node; which node, and how many, is for `Quorum` and `Reads`."""

    def __init__(self, dialer: Dialer, copies: Copies, options: LinkSettings, quorum: QuorumSettings) -> None:
        self._dialer = dialer
        self._copies = copies
        self._options = options
        self._links: dict[str, NodeLink] = {}
        self._liveness = Liveness(time.monotonic, quorum.avoid_s)
        self._quorum = Quorum(self, copies, self._liveness, quorum, options, time.monotonic, os.urandom)
        self._reads = Reads(self, copies, self._liveness, quorum, options)

    async def start(self) -> None:
        """Links open with the first operation for their node."""

    async def stop(self) -> None:
        await self._quorum.stop()
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def execute(
        self,
        owner: Owner,
        operation: node_pb2.Operation,
        call: Call,
        *,
        seen: Seen = NOTHING_SEEN,
        consistency: types_pb2.Consistency = types_pb2.CONSISTENCY_UNSPECIFIED,
    ) -> Done:
        """See `ports.Nodes`."""
        if operation.WhichOneof("action") in _WRITES:
            return await self._quorum.write(owner, operation, call.deadline, consistency, seen)
        return await self._reads.read(owner, operation, call.deadline, seen, consistency)

    async def send(self, node: PlacementNode, operation: node_pb2.Operation, deadline: float | None, *, write: bool) -> Sent:
        """See `ports.Lanes`."""
        link = self._link(node)
        lane = link.writes if write else link.reads
        try:
            reply = await lane.submit(operation, deadline)
        except OwnerUnavailable:
            self._liveness.failed(node.node_id)  # the link, and not a node that is well and behind what a reader has seen
            raise
        if reply.result.HasField("error"):
            error = status_to_error(reply.result.error)
            tell_seen(error, Owner(operation.tenant, operation.user), {head.replica: head.counter for head in reply.result.heads})
            raise error
        return Sent(reply.replica, reply.result)

    async def execute_on_all(self, operation: node_pb2.Operation, call: Call) -> list[tuple[str, node_pb2.OperationResult | Exception]]:
        """See `ports.Nodes`."""
        placement = self._copies.placement
        members = () if placement is None else [member for member in placement.members if member.phase is not MemberPhase.LEFT]
        asked = (self.send(m, _copy(operation), call.deadline, write=False) for m in members)
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [(m.node_id, as_ndml_error(r) if isinstance(r, BaseException) else r.result) for m, r in zip(members, found, strict=True)]

    @property
    def copies_each(self) -> int:
        """See `ports.Nodes`."""
        placement = self._copies.placement
        if placement is None:
            return 1
        serving = sum(member.phase in (MemberPhase.ACTIVE, MemberPhase.LEAVING) for member in placement.members)
        return max(1, min(placement.replication_factor, serving))

    @property
    def profiles(self) -> Set[str]:
        """See `ports.Nodes`."""
        placement = self._copies.placement
        return frozenset() if placement is None else placement.profiles

    def export(self, owner: Owner, request: node_pb2.ExportRequest, call: Call) -> AsyncGenerator[node_pb2.ExportResponse, None]:
        """See `ports.Nodes`."""
        return self._stream("Export", owner, request, call)

    def consolidate(
        self, owner: Owner, request: node_pb2.ConsolidateRequest, call: Call
    ) -> AsyncGenerator[node_pb2.ConsolidateResponse, None]:
        """See `ports.Nodes`."""
        return self._stream("Consolidate", owner, request, call)

    async def _stream(
        self, method: str, owner: Owner, request: node_pb2.ExportRequest | node_pb2.ConsolidateRequest, call: Call
    ) -> AsyncGenerator[Any, None]:
        """A server stream of the likeliest owner. Before its first message a stale placement is refreshed, as in `in_rounds`, and a node
        that is away is left for the next; after it nothing is repeated.
        """
        nodes, stale = self._liveness.ordered(self._copies.owners(*owner)), 0
        while True:
            node = nodes.pop(0)
            epoch = request.epoch = self._copies.epoch
            begun = False
            try:
                async with aclosing(self._parts(method, node, request, call)) as parts:
                    async for part in parts:
                        begun = True
                        yield part
                return
            except StaleEpoch:
                # A node refuses an epoch before its first message: nothing has been passed on yet.
                stale += 1
                if stale > self._options.attempts:
                    raise
            except Unavailable:
                self._liveness.failed(node.node_id)
                if begun or not nodes:
                    raise
                continue
            metrics.STALE_EPOCH_RETRIES.inc()
            await self._copies.wait_newer(epoch, self._options.stale_wait_s)
            nodes = self._liveness.ordered(self._copies.owners(*owner))

    async def _parts(
        self, method: str, node: PlacementNode, request: node_pb2.ExportRequest | node_pb2.ConsolidateRequest, call: Call
    ) -> AsyncGenerator[Any, None]:
        metadata = trace_metadata() or metadata_of(call.traceparent, call.tenant_hash)
        parts = getattr(self._link(node).stub, method)(request, timeout=call.remaining(), metadata=metadata)
        try:
            async for part in parts:
                yield part
        except grpc.RpcError as error:
            raise _of_node(node, error) from error
        finally:
            parts.cancel()  # of no effect at the end; before it, the node learns that nobody listens any more

    def _link(self, node: PlacementNode) -> NodeLink:
        link = self._links.get(node.node_id)
        if link is not None and link.address == node.address:
            return link
        if not node.address:
            raise OwnerUnavailable(f"{node.node_id} owns this scope and has not registered yet: is the process running?")
        if link is not None:  # it came back elsewhere
            closing = asyncio.get_running_loop().create_task(link.close())
            closing.add_done_callback(lambda task: task.exception())
        link = NodeLink(self._dialer, node.node_id, node.address, lambda: self._copies.epoch, self._options)
        self._links[node.node_id] = link
        return link


def _of_llm(error: NdmlError) -> NdmlError:
    """Who is away, or silent, is the llm service, and not an owner of memories."""
    if isinstance(error, OwnerUnavailable):
        return ModelUnavailable(f"the llm service does not answer ({error.message}): is it running at llm.addresses?")
    if isinstance(error, Draining):
        return ModelUnavailable("the llm service is starting or stopping: come back shortly", retry_after_s=error.retry_after_s)
    return error


def _of_node(node: PlacementNode, error: grpc.RpcError) -> NdmlError:
    mapped = rpc_error_to_ndml(error)
    if not isinstance(mapped, OwnerUnavailable):
        return mapped
    text = f"{node.node_id} ({node.address}) does not answer ({mapped.message}): repeat the call"
    return OwnerUnavailable(text, retry_after_s=mapped.retry_after_s)


def _copy(operation: node_pb2.Operation) -> node_pb2.Operation:
    """The lane stamps its deadline into the operation: two lanes must not share one."""
    twin = node_pb2.Operation()
    twin.CopyFrom(operation)
    return twin


def _no_replica() -> ModelUnavailable:
    return ModelUnavailable("no llm service is there: see llm.addresses, or the Service in kubernetes.llm_service", retry_after_s=1.0)


async def _unary(method: Callable[..., Awaitable[R]], request: Message, timeout_s: float, metadata: Sequence[tuple[str, str]] = ()) -> R:
    return await method(request, timeout=timeout_s, metadata=metadata)


class LlmRemote:
    """The llm service's replicas: hedged embedding, streamed generation, and questions to any of them.

    Fulfils `ports.ChatModel`, `ports.Scorer` and `ports.ModelDirectory`.
    """

    def __init__(self, replicas: Replicas, space: VectorSpace, timeout_s: float, word_vectors: bool) -> None:
        self._replicas = replicas
        self._space = space
        self._timeout_s = timeout_s
        self._word_vectors = word_vectors
        self._window = LatencyWindow(floor_s=0.05, start_s=2.0)

    async def start(self) -> None:
        """Channels connect on first use."""

    async def stop(self) -> None:
        await self._replicas.close()

    async def encode(self, texts: list[str], metadata: TraceMetadata) -> list[Embedded]:
        """Vectors of at most 256 texts. Raises ModelUnavailable, ModelNotConfigured when the service has another vector space."""
        request = llm_pb2.EmbedRequest(texts=texts, word_vectors=self._word_vectors)
        with self._replicas.in_turn() as stubs:
            attempts: list[Callable[[], Awaitable[llm_pb2.EmbedResponse]]] = [
                partial(_unary, stub.Embed, request, self._timeout_s, metadata) for stub in stubs
            ]
            if not attempts:
                raise _no_replica()
            try:
                response = await hedged(attempts, self._window)
            except (OwnerUnavailable, Draining) as error:
                raise _of_llm(error) from None
        if response.dimension != self._space.dimension or response.model != self._space.model:
            raise ModelNotConfigured(
                f"the llm service embeds with {response.model!r} ({response.dimension} components), the suite keeps vectors of "
                f"{self._space.model!r} ({self._space.dimension}): set embedding.model and embedding.dimension of gateway and nodes alike"
            )
        return [Embedded(embedding.vector, embedding.word_vectors) for embedding in response.embeddings]

    async def generate(self, request: llm_pb2.GenerateRequest, call: Call) -> AsyncGenerator[llm_pb2.GenerateResponse, None]:
        """See `ports.ChatModel`. Another replica is tried only before the first token, where this one has done nothing."""
        with self._replicas.in_turn() as stubs:
            for left, stub in zip(reversed(range(len(stubs))), stubs, strict=True):
                started = False
                parts = stub.Generate(request, timeout=call.remaining(), metadata=trace_metadata())
                try:
                    async for part in parts:
                        started = True
                        yield part
                    return
                except Exception as error:
                    mapped = as_ndml_error(error)
                    if started or not left or not isinstance(mapped, _NOTHING_DONE):
                        raise _of_llm(mapped) from error
                finally:
                    parts.cancel()  # of no effect at the end; before it, the model stops
        raise _no_replica()

    async def score(self, request: llm_pb2.ScoreRequest, timeout_s: float) -> llm_pb2.ScoreResponse:
        """See `ports.Scorer`."""
        return await self._first(lambda stub: _unary(stub.Score, request, timeout_s, trace_metadata()))

    async def embed_joint(self, request: llm_pb2.EmbedJointRequest, timeout_s: float) -> llm_pb2.EmbedJointResponse:
        """Vectors of up to 64 texts or contents. Raises FieldInvalid, ModelUnknown, ModelUnavailable, Overloaded."""
        return await self._first(lambda stub: _unary(stub.EmbedJoint, request, timeout_s, trace_metadata()))

    async def info(self, call: Call) -> llm_pb2.GetModelInfoResponse:
        """See `ports.ModelDirectory`."""
        remaining = call.remaining()
        timeout_s = _STATUS_TIMEOUT_S if remaining is None else min(_STATUS_TIMEOUT_S, remaining)
        return await self._first(lambda stub: _unary(stub.GetModelInfo, llm_pb2.GetModelInfoRequest(), timeout_s, trace_metadata()))

    async def _first(self, ask: Callable[[llm_pb2_grpc.LlmServiceAsyncStub], Awaitable[R]]) -> R:
        """What the first replica that is there says."""
        with self._replicas.in_turn() as stubs:
            for left, stub in zip(reversed(range(len(stubs))), stubs, strict=True):
                try:
                    return await ask(stub)
                except Exception as error:
                    mapped = as_ndml_error(error)
                    if isinstance(mapped, DeadlinePassed):  # these questions are quick: whoever takes longer is stuck, or too busy
                        mapped = OwnerUnavailable(mapped.message)
                    if not left or not isinstance(mapped, _NOTHING_DONE):
                        raise _of_llm(mapped) from error
        raise _no_replica()


class ClusterRemote:
    """Fulfils `ports.Cluster` with one short-lived channel a question: operators ask rarely."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    async def node_status(self, address: str) -> node_pb2.GetNodeStatusResponse:
        async with self._dialer.open(address) as channel:
            stub = memory_node_pb2_grpc.MemoryNodeServiceStub(channel)
            return await _unary(stub.GetNodeStatus, node_pb2.GetNodeStatusRequest(), _STATUS_TIMEOUT_S)

    async def consensus_status(self, address: str) -> consensus_pb2.GetConsensusStatusResponse:
        async with self._dialer.open(address) as channel:
            stub = consensus_pb2_grpc.ConsensusServiceStub(channel)
            return await _unary(stub.GetConsensusStatus, consensus_pb2.GetConsensusStatusRequest(), _STATUS_TIMEOUT_S)

    async def model_info(self, address: str) -> llm_pb2.GetModelInfoResponse:
        async with self._dialer.open(address) as channel:
            stub = llm_pb2_grpc.LlmServiceStub(channel)
            return await _unary(stub.GetModelInfo, llm_pb2.GetModelInfoRequest(), _STATUS_TIMEOUT_S)

    async def create_snapshot(self, address: str) -> node_pb2.CreateSnapshotResponse:
        async with self._dialer.open(address) as channel:
            stub = memory_node_pb2_grpc.MemoryNodeServiceStub(channel)
            return await _unary(stub.CreateSnapshot, node_pb2.CreateSnapshotRequest(), _SNAPSHOT_TIMEOUT_S)


class StoreRemote:
    """Fulfils `ports.Stores`, with a channel to each node that was asked."""

    def __init__(self, dialer: Dialer, call_s: float) -> None:
        self._dialer = dialer
        self._call_s = call_s
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def start(self) -> None:
        """Channels open with the first question."""

    async def stop(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))

    async def owners(self, node: PlacementNode, buckets: Sequence[int]) -> AsyncGenerator[replication_pb2.OwnerState, None]:
        request = replication_pb2.ListOwnersRequest(buckets=buckets)
        async for response in self._answers(node, "ListOwners", request):
            for state in response.owners:
                yield state

    async def records(self, node: PlacementNode, owner: Owner) -> AsyncGenerator[Sequence[replication_pb2.TraceRecord], None]:
        request = replication_pb2.FetchRecordsRequest(tenant=owner.tenant, user=owner.user, all=True)
        async for response in self._answers(node, "FetchRecords", request):
            if response.records:
                yield response.records

    async def state(self, node: PlacementNode, owner: Owner) -> replication_pb2.OwnerState:
        """Asks for no record: the last message has the owner."""
        request = replication_pb2.FetchRecordsRequest(tenant=owner.tenant, user=owner.user)
        state = replication_pb2.OwnerState()
        async for response in self._answers(node, "FetchRecords", request):
            state = response.owner
        return state

    async def push(self, node: PlacementNode, owner: Owner, records: Sequence[replication_pb2.TraceRecord]) -> int:
        request = replication_pb2.PushRecordsRequest(tenant=owner.tenant, user=owner.user, records=records)
        return sum([response.changed async for response in self._answers(node, "PushRecords", _one(request))])

    async def set_phase(self, node: PlacementNode, phase: admin_pb2.MemberPhase) -> admin_pb2.MemberPhase:
        try:
            request = replication_pb2.SetPhaseRequest(phase=phase)
            response: replication_pb2.SetPhaseResponse = await _unary(self._stub(node).SetPhase, request, self._call_s)
        except grpc.RpcError as error:
            raise _of_node(node, error) from error
        return response.phase

    async def _answers(self, node: PlacementNode, method: str, request: object) -> AsyncGenerator[Any, None]:
        stream = getattr(self._stub(node), method)(request, metadata=trace_metadata())
        try:
            while True:
                async with asyncio.timeout(self._call_s):
                    response = await stream.read()
                if not isinstance(response, Message):  # the end has a mark of its own
                    return
                yield response
        except grpc.RpcError as error:
            raise _of_node(node, error) from error
        except TimeoutError:
            raise OwnerUnavailable(f"{node.node_id} has said nothing for {self._call_s} s (backup.call_s)") from None
        finally:
            stream.cancel()

    def _stub(self, node: PlacementNode) -> replication_pb2_grpc.ReplicationServiceAsyncStub:
        if not node.address:
            raise OwnerUnavailable(f"{node.node_id} has not registered yet: is the process running?")
        if node.address not in self._channels:
            self._channels[node.address] = self._dialer.open(node.address, retries=False)
        return replication_pb2_grpc.ReplicationServiceStub(self._channels[node.address])


async def _one(message: R) -> AsyncIterator[R]:
    yield message
