"""The gateway's network: memory nodes by owner, the llm service, and the status calls. Nothing else in this package opens a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from ndml.errors import ModelNotConfigured, ModelUnavailable, NdmlError, OwnerUnavailable, StaleEpoch
from ndml.internal.v1 import consensus_pb2, consensus_pb2_grpc, llm_pb2, llm_pb2_grpc, memory_node_pb2_grpc
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.placement import Placement, PlacementNode
from ndml.runtime import metrics
from ndml.runtime.call import Call
from ndml.runtime.channel import LatencyWindow, hedged, open_channel, trace_metadata
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.telemetry import TRACEPARENT
from ndml.wire import rpc_error_to_ndml, status_to_error
from services.gateway.links import NodeLink
from services.gateway.ports import NOTHING_SEEN
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings
from services.gateway.vectors import VectorSpace

R = TypeVar("R")

_WRITES = frozenset({"put", "update", "delete", "reinforce"})
_STATUS_TIMEOUT_S = 2.0
_SNAPSHOT_TIMEOUT_S = 600.0


class PlacementSource(Protocol):
    """Where the current placement comes from: `ndml.runtime.placement.PlacementWatcher`."""

    @property
    def placement(self) -> Placement | None: ...

    @property
    def epoch(self) -> int: ...

    def owners(self, tenant: str, user: str) -> Sequence[PlacementNode]: ...

    async def wait_newer(self, epoch: int, timeout_s: float) -> bool: ...


class MemoryNodes:
    """Fulfils `ports.Nodes`: finds the owner, keeps a link to each node, repeats what is safe to repeat."""

    def __init__(self, placement: PlacementSource, options: LinkSettings) -> None:
        self._placement = placement
        self._options = options
        self._links: dict[str, NodeLink] = {}
        self._window = LatencyWindow()

    async def start(self) -> None:
        """Links open with the first operation for their node."""

    async def stop(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def execute(
        self, owner: Owner, operation: node_pb2.Operation, call: Call, seen: Mapping[str, int] = NOTHING_SEEN
    ) -> tuple[str, node_pb2.OperationResult]:
        """See `ports.Nodes`. A stale placement is refreshed and tried once more, a node that is away as often as is safe."""
        action = operation.WhichOneof("action") or ""
        tries = self._options.attempts if _repeatable(operation) else 1
        stale_before = False
        for left in reversed(range(tries)):
            epoch = self._placement.epoch
            try:
                return await self._once(owner, operation, call, action in _WRITES, seen)
            except StaleEpoch:
                if stale_before:
                    raise
                stale_before = True
                metrics.STALE_EPOCH_RETRIES.inc()
                await self._placement.wait_newer(epoch, self._options.stale_wait_s)
            except OwnerUnavailable:
                if left == 0:
                    raise
                await asyncio.sleep(self._options.retry_backoff_s * 2 ** (tries - 1 - left))
        return await self._once(owner, operation, call, action in _WRITES, seen)

    async def _once(
        self, owner: Owner, operation: node_pb2.Operation, call: Call, write: bool, seen: Mapping[str, int]
    ) -> tuple[str, node_pb2.OperationResult]:
        owners = self._placement.owners(owner.tenant, owner.user)
        if write or len(owners) == 1:
            return await self._on_node(owners[0], operation, call, write, seen)
        attempts = [partial(self._on_node, node, _copy(operation), call, False, seen) for node in owners]
        return await hedged(attempts, self._window)

    async def _on_node(
        self, node: PlacementNode, operation: node_pb2.Operation, call: Call, write: bool, seen: Mapping[str, int] = NOTHING_SEEN
    ) -> tuple[str, node_pb2.OperationResult]:
        operation.min_sequence = seen.get(node.node_id, 0)
        link = self._link(node)
        lane = link.writes if write else link.reads
        result = await lane.submit(operation, call.deadline)
        if result.HasField("error"):
            raise status_to_error(result.error)
        return node.node_id, result

    async def execute_on_all(self, operation: node_pb2.Operation, call: Call) -> list[tuple[str, node_pb2.OperationResult | Exception]]:
        """See `ports.Nodes`."""
        placement = self._placement.placement
        members = () if placement is None else placement.members
        found = await asyncio.gather(*(self._on_node(m, _copy(operation), call, False) for m in members), return_exceptions=True)
        return [(m.node_id, as_ndml_error(r) if isinstance(r, BaseException) else r[1]) for m, r in zip(members, found, strict=True)]

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
        """A server stream of the owner's node. A stale placement is refreshed and the call made once more; nothing else is repeated."""
        for stale_before in (False, True):
            node = self._placement.owners(owner.tenant, owner.user)[0]
            epoch = request.epoch = self._placement.epoch
            metadata = trace_metadata() or (((TRACEPARENT, call.traceparent),) if call.traceparent else ())
            parts = getattr(self._link(node).stub, method)(request, timeout=call.remaining(), metadata=metadata)
            try:
                async for part in parts:
                    yield part
                return
            except grpc.RpcError as error:
                mapped = _of_node(node, error)
                # A node refuses an epoch before its first message: nothing has been passed on yet.
                if stale_before or not isinstance(mapped, StaleEpoch):
                    raise mapped from error
            finally:
                parts.cancel()  # of no effect at the end; before it, the node learns that nobody listens any more
            metrics.STALE_EPOCH_RETRIES.inc()
            await self._placement.wait_newer(epoch, self._options.stale_wait_s)

    def _link(self, node: PlacementNode) -> NodeLink:
        link = self._links.get(node.node_id)
        if link is not None and link.address == node.address:
            return link
        if not node.address:
            raise OwnerUnavailable(f"{node.node_id} owns this scope and has not registered yet: is the process running?")
        if link is not None:  # it came back elsewhere
            closing = asyncio.get_running_loop().create_task(link.close())
            closing.add_done_callback(lambda task: task.exception())
        link = self._links[node.node_id] = NodeLink(node.node_id, node.address, lambda: self._placement.epoch, self._options)
        return link


def _repeatable(operation: node_pb2.Operation) -> bool:
    """Whether a second try can do no harm: an update counts the version up, feedback without a digest counts again."""
    if operation.HasField("reinforce"):
        return bool(operation.reinforce.request_digest)
    return not operation.HasField("update")


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


async def _unary(method: Callable[..., Awaitable[R]], request: Message, timeout_s: float, metadata: Sequence[tuple[str, str]] = ()) -> R:
    return await method(request, timeout=timeout_s, metadata=metadata)


class LlmRemote:
    """The llm service's replicas: hedged embedding, streamed generation."""

    def __init__(self, addresses: Sequence[str], space: VectorSpace, timeout_s: float) -> None:
        self._space = space
        self._timeout_s = timeout_s
        self._window = LatencyWindow(floor_s=0.05, start_s=2.0)
        self._channels = [open_channel(address) for address in addresses]
        self._stubs: list[llm_pb2_grpc.LlmServiceAsyncStub] = [llm_pb2_grpc.LlmServiceStub(channel) for channel in self._channels]
        self._turn = 0

    async def start(self) -> None:
        """Channels connect on first use."""

    async def stop(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    async def encode(self, texts: list[str], traceparent: str) -> list[bytes]:
        """Unit vectors of at most 256 texts. Raises ModelUnavailable, ModelNotConfigured when the service has another vector space."""
        request = llm_pb2.EmbedRequest(texts=texts)
        metadata = ((TRACEPARENT, traceparent),) if traceparent else ()
        attempts: list[Callable[[], Awaitable[llm_pb2.EmbedResponse]]] = [
            partial(_unary, stub.Embed, request, self._timeout_s, metadata) for stub in self._in_turn()
        ]
        try:
            response = await hedged(attempts, self._window)
        except OwnerUnavailable as error:
            raise ModelUnavailable(f"the llm service does not answer ({error.message}): is it running at llm.addresses?") from None
        if response.dimension != self._space.dimension or response.model != self._space.model:
            raise ModelNotConfigured(
                f"the llm service embeds with {response.model!r} ({response.dimension} components), the suite keeps vectors of "
                f"{self._space.model!r} ({self._space.dimension}): set embedding.model and embedding.dimension of gateway and nodes alike"
            )
        return [embedding.vector for embedding in response.embeddings]

    async def generate(self, request: llm_pb2.GenerateRequest, call: Call) -> AsyncIterator[llm_pb2.GenerateResponse]:
        """See `ports.ChatModel`. Another replica is tried only before the first token."""
        stubs = self._in_turn()
        for left, stub in zip(reversed(range(len(stubs))), stubs, strict=True):
            started = False
            try:
                async for part in stub.Generate(request, timeout=call.remaining(), metadata=trace_metadata()):
                    started = True
                    yield part
                return
            except Exception as error:
                mapped = as_ndml_error(error)
                if not isinstance(mapped, OwnerUnavailable):
                    raise mapped from error
                if started or not left:
                    raise ModelUnavailable(f"the llm service does not answer ({mapped.message}): is it running at llm.addresses?") from None

    def _in_turn(self) -> list[llm_pb2_grpc.LlmServiceAsyncStub]:
        self._turn = (self._turn + 1) % len(self._stubs)
        return self._stubs[self._turn :] + self._stubs[: self._turn]


class ClusterRemote:
    """Fulfils `ports.Cluster` with one short-lived channel a question: operators ask rarely."""

    async def node_status(self, address: str) -> node_pb2.GetNodeStatusResponse:
        async with open_channel(address) as channel:
            stub = memory_node_pb2_grpc.MemoryNodeServiceStub(channel)
            return await _unary(stub.GetNodeStatus, node_pb2.GetNodeStatusRequest(), _STATUS_TIMEOUT_S)

    async def consensus_status(self, address: str) -> consensus_pb2.GetConsensusStatusResponse:
        async with open_channel(address) as channel:
            stub = consensus_pb2_grpc.ConsensusServiceStub(channel)
            return await _unary(stub.GetConsensusStatus, consensus_pb2.GetConsensusStatusRequest(), _STATUS_TIMEOUT_S)

    async def model_info(self, address: str) -> llm_pb2.GetModelInfoResponse:
        async with open_channel(address) as channel:
            stub = llm_pb2_grpc.LlmServiceStub(channel)
            return await _unary(stub.GetModelInfo, llm_pb2.GetModelInfoRequest(), _STATUS_TIMEOUT_S)

    async def create_snapshot(self, address: str) -> node_pb2.CreateSnapshotResponse:
        async with open_channel(address) as channel:
            stub = memory_node_pb2_grpc.MemoryNodeServiceStub(channel)
            return await _unary(stub.CreateSnapshot, node_pb2.CreateSnapshotRequest(), _SNAPSHOT_TIMEOUT_S)
