"""What the gateway's cores need of the outside, as protocols; `remotes.py` and `links.py` fulfil them over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import NamedTuple, Protocol

from ndml.internal.v1 import consensus_pb2, llm_pb2, memory_node_pb2, replication_pb2
from ndml.placement import Placement, PlacementNode
from ndml.runtime.call import Call
from ndml.v1 import admin_pb2, types_pb2
from services.gateway.scopes import Owner

Seen = Mapping[int, int]
"""Number of a store -> its sequence number up to which something is known of an owner."""
NOTHING_SEEN: Seen = MappingProxyType({})


class Done(NamedTuple):
    """What became of an operation: its result, without error, and what a read must have seen to see a write, or no less than a read did."""

    result: memory_node_pb2.OperationResult
    seen: Seen = NOTHING_SEEN


class Nodes(Protocol):
    """The memory nodes, addressed by owner."""

    async def execute(
        self,
        owner: Owner,
        operation: memory_node_pb2.Operation,
        call: Call,
        *,
        seen: Seen = NOTHING_SEEN,
        consistency: types_pb2.Consistency = types_pb2.CONSISTENCY_UNSPECIFIED,
    ) -> Done:
        """Run the operation on the owner's copies, as many as `consistency` says. Raises NdmlError.

        seen: what the copy that serves a read, or begins a write, must know.
        """
        ...

    async def execute_on_all(
        self, operation: memory_node_pb2.Operation, call: Call
    ) -> list[tuple[str, memory_node_pb2.OperationResult | Exception]]:
        """Run it on every member; one that fails gives its exception instead of a result."""
        ...

    @property
    def copies_each(self) -> int:
        """How many members hold each owner."""
        ...

    @property
    def profiles(self) -> Set[str]:
        """Node profiles of the members that serve."""
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


class Copies(Protocol):
    """Who has copies of what: `ndml.runtime.placement.PlacementWatcher`."""

    @property
    def placement(self) -> Placement | None: ...

    @property
    def epoch(self) -> int: ...

    def owners(self, tenant: str, user: str) -> Sequence[PlacementNode]:
        """First choice first, at least one. Raises OwnerUnavailable."""
        ...

    def copies(self, tenant: str, user: str) -> Sequence[PlacementNode]:
        """The owners, then those that are coming: they get the writes and serve nothing yet."""
        ...

    async def wait_newer(self, epoch: int, timeout_s: float) -> bool:
        """Wait for an epoch past this one; False when it does not come in time."""
        ...


class Sent(NamedTuple):
    """A node's answer to one operation: the number of its store, and a result without error."""

    replica: int
    result: memory_node_pb2.OperationResult


class Lanes(Protocol):
    """The way to single nodes."""

    async def send(self, node: PlacementNode, operation: memory_node_pb2.Operation, deadline: float | None, *, write: bool) -> Sent:
        """Run it there, until `deadline` of the clock. Raises OwnerUnavailable where the node is away, else what the node said."""
        ...


class Stores(Protocol):
    """The nodes' replication doors, for operators. Everything raises NdmlError."""

    def owners(self, node: PlacementNode, buckets: Sequence[int]) -> AsyncIterator[replication_pb2.OwnerState]:
        """What the node holds in these buckets of owners."""
        ...

    def records(self, node: PlacementNode, owner: Owner) -> AsyncGenerator[Sequence[replication_pb2.TraceRecord], None]:
        """All records of an owner, some at a time."""
        ...

    async def state(self, node: PlacementNode, owner: Owner) -> replication_pb2.OwnerState:
        """Digest and number of an owner's records now."""
        ...

    async def push(self, node: PlacementNode, owner: Owner, records: Sequence[replication_pb2.TraceRecord]) -> int:
        """Have the node join at most 1,024 records, on disk when this returns; how many said something new."""
        ...

    async def set_phase(self, node: PlacementNode, phase: admin_pb2.MemberPhase) -> admin_pb2.MemberPhase:
        """Have the node leave or come back; its phase now."""
        ...


class Embedded(NamedTuple):
    """What a text is compared by: a unit vector, float32 little-endian, and one of signed bytes for each content word, empty: none."""

    vector: bytes
    words: bytes = b""


class Embedder(Protocol):
    """Texts to vectors."""

    async def embed(self, texts: Sequence[str], call: Call) -> list[Embedded]:
        """One for each text. Raises ModelUnavailable, ModelNotConfigured, Overloaded."""
        ...


class JointSpace(NamedTuple):
    """A space in which a joint encoder puts texts and contents side by side; `media`: top-level media types that it reads, as "image"."""

    name: str
    dimension: int
    media: tuple[str, ...]


class JointEncoders(Protocol):
    """Texts and contents to unit vectors of one space, float32 little-endian."""

    async def spaces(self, call: Call) -> Sequence[JointSpace]:
        """Those that are configured. Raises ModelUnavailable."""
        ...

    async def embed_texts(self, space: JointSpace, texts: Sequence[str], call: Call) -> list[bytes]:
        """Raises ModelUnavailable, Overloaded."""
        ...

    async def embed_contents(self, space: JointSpace, contents: Sequence[types_pb2.Content], call: Call) -> list[bytes]:
        """Of the data of at most 64 contents. Raises ModelUnavailable, Overloaded; FieldInvalid for what it cannot
        read, its field `contents[i].data`."""
        ...


class ChatModel(Protocol):
    """A language model."""

    def generate(self, request: llm_pb2.GenerateRequest, call: Call) -> AsyncGenerator[llm_pb2.GenerateResponse, None]:
        """Stream the answer; closing it stops the model.

        Raises ModelNotConfigured, ModelUnavailable, ModelUnknown, FusionUnsupported, Overloaded.
        """
        ...


class Scorer(Protocol):
    """Says how much texts surprise a language model."""

    async def score(self, request: llm_pb2.ScoreRequest, timeout_s: float) -> llm_pb2.ScoreResponse:
        """One score for each text. Raises ModelNotConfigured, ModelUnavailable, ScoresUnsupported, Overloaded."""
        ...


class ModelDirectory(Protocol):
    """Knows which models are loaded."""

    async def info(self, call: Call) -> llm_pb2.GetModelInfoResponse:
        """Of one replica; all are alike. Raises ModelUnavailable."""
        ...


class Cluster(Protocol):
    """The other processes, for operators."""

    async def node_status(self, address: str) -> memory_node_pb2.GetNodeStatusResponse: ...

    async def consensus_status(self, address: str) -> consensus_pb2.GetConsensusStatusResponse: ...

    async def model_info(self, address: str) -> llm_pb2.GetModelInfoResponse: ...

    async def create_snapshot(self, address: str) -> memory_node_pb2.CreateSnapshotResponse: ...
