"""What replication needs from the store, the placement and the other nodes. node_store.py and remotes.py fill these; so do the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import MemberPhase
from services.memory_node.positions import JournalRow
from services.memory_node.records import Owner

T = TypeVar("T")

Digests = NDArray[np.uint8]
"""[n, 16]."""

Clock = Callable[[], float]
"""Seconds that only grow, as `time.monotonic`."""

Sleep = Callable[[float], Awaitable[None]]


class ReplicaReader(Protocol):
    """Read queries. Blocking; each raises StoreUnavailable where the disk fails."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Everything read inside sees one state of the store."""
        ...

    def owners(self, after: Owner | None, limit: int) -> Sequence[Owner]:
        """Owners that have records, in order, past `after`."""
        ...

    def changed_owners(self, after: int) -> Sequence[Owner]:
        """Owners whose records have changed since this position of the store, in any order."""
        ...

    def owner_state(self, owner: Owner) -> rpb.OwnerState:
        """Digest, number of records and heads; zeros where nothing is known of the owner."""
        ...

    def record_digests(self, owner: Owner) -> tuple[Digests, Digests]:
        """Digests and trace ids of all records, erased ones included, row by row."""
        ...

    def records(self, owner: Owner, trace_ids: Sequence[bytes] | None) -> Iterator[rpb.TraceRecord]:
        """The records of these traces, as far as there are any; None: all."""
        ...

    def heads(self, owner: Owner) -> dict[int, int]:
        """What is known of each author, this store's own position included."""
        ...

    def shown(self, owner: Owner) -> dict[int, int]:
        """Up to where each author's updates may show here: what is known, or more."""
        ...

    def unsettled(self, limit: int) -> Sequence[Owner]:
        """Owners of whom more shows than is known."""
        ...

    def journal(self, after: int, limit: int) -> Sequence[JournalRow]:
        """Authored jobs past a position, in order."""
        ...

    def journal_size(self, after: int) -> int:
        """How many there are."""
        ...

    def journal_keep(self, rows: int) -> int:
        """The position up to which all but the newest `rows` lie; 0: there are no more than that."""
        ...

    def conflicts(self) -> int:
        """Traces with more than one distinct content."""
        ...

    def update_of(self, row: JournalRow) -> rpb.OwnerUpdate:
        """The update of a job, its records as they are now."""
        ...


class LocalStore(Protocol):
    """This node's store as the event loop sees it."""

    @property
    def replica(self) -> int:
        """Number of the store."""
        ...

    @property
    def last_sequence(self) -> int:
        """Position of the last commit: what is read twice at one position is the same."""
        ...

    async def call(self, work: Callable[[ReplicaReader], T]) -> T:
        """Have blocking reads done."""
        ...

    async def join(self, owner: Owner, action: pb.MergeAction) -> pb.MergeResult:
        """On disk when it returns. Raises NdmlError: Overloaded where the queue is full, FieldInvalid where nothing of it was taken."""
        ...

    async def written(self) -> None:
        """Wait until every write that was let in so far is on disk. Raises Overloaded where the queue is full."""
        ...

    async def prune(self, up_to: int) -> None:
        """Forget the journal up to a position."""
        ...

    async def drop(self, owner: Owner, digest: bytes) -> bool:
        """Remove an owner from this node without erasing it, if its digest is still this one."""
        ...

    async def settle(self, owner: Owner, digest: bytes, absent: str) -> bool:
        """What shows of the owner stands at every other copy, but for the node `absent` ("": none), if its digest is still this one."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """Another node of the placement. `alive` as the consensus nodes see it; advice. `stays`: it is neither leaving nor gone."""

    node_id: str
    address: str
    alive: bool = True
    stays: bool = True


class Shares(Protocol):
    """Who has copies of what."""

    @property
    def node_id(self) -> str:
        """This node."""
        ...

    @property
    def epoch(self) -> int: ...

    def owners(self, tenant: str, user: str) -> Sequence[str]:
        """Node ids of those that serve the owner; empty while no placement is known."""
        ...

    def copies(self, tenant: str, user: str) -> Sequence[str]:
        """Node ids of owners and coming owners; empty while no placement is known."""
        ...

    def partners(self) -> Sequence[Member]:
        """Every other node that may hold what this one should have, or the other way round, and has an address."""
        ...

    @property
    def replication_factor(self) -> int:
        """Owners of each (tenant, user) where there are members enough."""
        ...

    @property
    def phase(self) -> MemberPhase | None:
        """How this node takes part by the placement; None: it is not in it."""
        ...


class Partner(Protocol):
    """Another memory node. Everything raises NdmlError; a stream that falls silent ends with OwnerUnavailable."""

    async def compare(self, request: rpb.CompareBucketsRequest) -> rpb.CompareBucketsResponse: ...

    def list_owners(self, request: rpb.ListOwnersRequest) -> AsyncIterator[rpb.ListOwnersResponse]: ...

    def symbols(self, request: rpb.StreamSymbolsRequest) -> AsyncIterator[rpb.StreamSymbolsResponse]: ...

    def fetch(self, request: rpb.FetchRecordsRequest) -> AsyncIterator[rpb.FetchRecordsResponse]: ...

    async def push(self, request: rpb.PushRecordsRequest) -> rpb.PushRecordsResponse: ...


PartnerOf = Callable[[str], Partner]
"""The partner of a node id. Raises OwnerUnavailable where its address is not known."""


class DeltaSession(Protocol):
    """An open exchange with a consensus node. Everything raises NdmlError once it is broken."""

    async def send(self, message: cpb.ExchangeDeltasRequest) -> None: ...

    async def receive(self) -> cpb.ExchangeDeltasResponse | None:
        """None: the other side ended it."""
        ...

    async def close(self) -> None: ...


OpenSession = Callable[[str], Awaitable[DeltaSession]]
"""Opens an exchange with the consensus node at an address."""


class UpdateGuard(Protocol):
    """Judges what others wrote before it is joined, and signs what this node wrote."""

    async def admit(self, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[Admitted]:
        """What may be joined now, waiting ones that these release included."""
        ...

    async def signed(self, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[rpb.OwnerUpdate]:
        """This node's own, with their signatures."""
        ...

    async def forget(self, up_to: int) -> None:
        """This node's updates up to a position are not asked for any more."""
        ...

    async def kept(self, owner: Owner, trace_ids: Sequence[bytes]) -> Sequence[rpb.OwnerUpdate]:
        """Signed updates that these traces are made of, with these traces' records alone."""
        ...

    async def inspected(self, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[rpb.OwnerUpdate]:
        """Those of a repair that may be joined."""
        ...

    async def keep(self, updates: Sequence[rpb.OwnerUpdate]) -> None:
        """These were joined; later repairs pass them on."""
        ...

    async def rumours(self) -> Sequence[rpb.OwnerUpdate]:
        """What other copies should hear of what others said to this one, since the last call."""
        ...

    async def learn(self, proofs: Sequence[bytes]) -> None:
        """Of other members' equivocation."""
        ...

    @property
    def accepts_records(self) -> bool:
        """Whether records without a signature are joined: an operator restores a backup."""
        ...

    @property
    def proofs(self) -> Sequence[bytes]:
        """Against the quarantined."""
        ...

    @property
    def quarantined(self) -> Sequence[str]:
        """Authors that equivocated."""
        ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """An update and what became of it. `join`: it goes into the store. `settled`: its sender need not send it again. `new`: it joins, and
    was never judged before."""

    update: rpb.OwnerUpdate
    join: bool
    settled: bool
    new: bool = False
