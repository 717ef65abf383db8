"""What the gateway's cores need of the outside, as protocols; `remotes.py` and `links.py` fulfil them over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from ndml.internal.v1 import consensus_pb2, llm_pb2, memory_node_pb2
from ndml.runtime.call import Call
from services.gateway.scopes import Owner

NOTHING_SEEN: Mapping[str, int] = MappingProxyType({})


class Nodes(Protocol):
    """The memory nodes, addressed by owner."""

    async def execute(
        self, owner: Owner, operation: memory_node_pb2.Operation, call: Call, seen: Mapping[str, int] = NOTHING_SEEN
    ) -> tuple[str, memory_node_pb2.OperationResult]:
        """Run the operation on the owner's node; returns that node's id and a result without error.

        seen: for each node id the sequence number that a read must not fall behind. Raises NdmlError.
        """
        ...

    async def execute_on_all(
        self, operation: memory_node_pb2.Operation, call: Call
    ) -> list[tuple[str, memory_node_pb2.OperationResult | Exception]]:
        """Run it on every member; one that fails gives its exception instead of a result."""
        ...

    def export(
        self, owner: Owner, request: memory_node_pb2.ExportRequest, call: Call
    ) -> AsyncGenerator[memory_node_pb2.ExportResponse, None]:
        """Stream the owner's traces; closing it cancels the node's call. Raises NdmlError."""
        ...

    def consolidate(
        self, owner: Owner, request: memory_node_pb2.ConsolidateRequest, call: Call
    ) -> AsyncGenerator[memory_node_pb2.ConsolidateResponse, None]:
        """Consolidate the owner's traces, streaming progress; closing it stops the node's work. Raises NdmlError."""
        ...


class Embedder(Protocol):
    """Texts to vectors."""

    async def embed(self, texts: Sequence[str], call: Call) -> list[bytes]:
        """One unit vector for each text, float32 little-endian. Raises ModelUnavailable, ModelNotConfigured, Overloaded."""
        ...


class ChatModel(Protocol):
    """A language model."""

    def generate(self, request: llm_pb2.GenerateRequest, call: Call) -> AsyncIterator[llm_pb2.GenerateResponse]:
        """Stream the answer. Raises ModelNotConfigured, ModelUnavailable."""
        ...


class Cluster(Protocol):
    """The other processes, for operators."""

    async def node_status(self, address: str) -> memory_node_pb2.GetNodeStatusResponse: ...

    async def consensus_status(self, address: str) -> consensus_pb2.GetConsensusStatusResponse: ...

    async def model_info(self, address: str) -> llm_pb2.GetModelInfoResponse: ...

    async def create_snapshot(self, address: str) -> memory_node_pb2.CreateSnapshotResponse: ...
