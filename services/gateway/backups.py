"""Backup and restore over the nodes' replication doors: each owner from a living copy, and back by joining into every copy.

A backup is made of records, the unit of replication: restoring it into a suite of another size, over newer data, or twice, is a join. What
was erased since stays erased, because an erased trace is a record too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from google.protobuf.message import DecodeError

from ndml.errors import DeadlineExceeded, FieldInvalid, Overloaded, OwnerUnavailable, StaleEpoch, Unavailable
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.internal.v1 import replication_pb2
from ndml.placement import MemberPhase, Placement, PlacementNode
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.log import get_logger
from ndml.v1 import admin_pb2, types_pb2
from services.gateway.liveness import ids
from services.gateway.ports import Cluster, Copies, Stores
from services.gateway.quorum import copies_of
from services.gateway.scopes import Owner
from services.gateway.settings import BackupSettings

T = TypeVar("T")
log = get_logger(__name__)

_BUCKETS = 256
_MOST_PUSHED = 1024
_Holders = dict[str, bytes]
"""Node -> digest of what it has of an owner."""


@dataclass(slots=True)
class _Living:
    """Nodes that answer. `estimate`: owners in all; each is counted by every copy. `pauses`: how often copies that differ get a moment."""

    nodes: dict[str, PlacementNode]
    estimate: int
    pauses: int


class Backups:
    """Answers Backup and Restore. write_copies: copies that an acknowledged write is on, as the quorum's settings say."""

    def __init__(self, stores: Stores, cluster: Cluster, copies: Copies, settings: BackupSettings, write_copies: int) -> None:
        self._stores = stores
        self._cluster = cluster
        self._copies = copies
        self._settings = settings
        self._write_copies = write_copies

    async def backup(self) -> AsyncIterator[admin_pb2.BackupResponse]:
        """Parts of every owner, one owner after the other. Raises OwnerUnavailable when writes may lie on nodes that are away alone."""
        living = await self._living()
        done = 0
        for buckets in _in_groups(self._settings.bucket_groups):
            holders = await self._holders(living.nodes, buckets)
            for owner in sorted(holders):
                async with aclosing(self._owner(owner, holders[owner], living)) as parts:
                    async for part in parts:
                        done += part.owner_records > 0
                        total = max(living.estimate, done)
                        yield admin_pb2.BackupResponse(part=part, owners_done=done, owners_total=total)

    async def _living(self) -> _Living:
        placement = self._copies.placement
        members = [] if placement is None else _holding(placement)
        if placement is None or not members:
            raise OwnerUnavailable("no memory node is known yet: come back shortly")
        found = await asyncio.gather(*(self._status(node) for node in members))
        away = [node.node_id for node, status in zip(members, found, strict=True) if status is None]
        if len(away) >= self._enough(placement.replication_factor):
            raise OwnerUnavailable(f"away: {', '.join(away)}. What they alone hold would be missing: start them, nothing was written")
        nodes = {node.node_id: node for node, status in zip(members, found, strict=True) if status is not None}
        counted = sum(status.owners for status in found if status is not None)
        estimate = -(-counted // max(1, min(placement.replication_factor, len(nodes))))
        return _Living(nodes, estimate, self._settings.settle_pauses)

    async def _status(self, node: PlacementNode) -> node_pb2.GetNodeStatusResponse | None:
        if not node.address:
            return None
        try:
            return await self._cluster.node_status(node.address)
        except Exception as error:
            if isinstance(as_ndml_error(error), Unavailable | DeadlineExceeded):
                return None
            raise

    async def _holders(self, nodes: Mapping[str, PlacementNode], buckets: Sequence[int]) -> dict[Owner, _Holders]:
        """Who has what of the owners in these buckets."""
        holders: dict[Owner, _Holders] = {}

        async def ask(node: PlacementNode) -> None:
            async for state in self._stores.owners(node, buckets):
                holders.setdefault(Owner(state.tenant, state.user), {})[node.node_id] = state.digest

        await asyncio.gather(*(ask(node) for node in nodes.values()))
        return holders

    async def _owner(self, owner: Owner, holders: _Holders, living: _Living) -> AsyncGenerator[admin_pb2.BackupPart, None]:
        """The owner's records, from one copy where the copies are equal; else from every one that differs: a restore joins them.

        Last a part without records: how many there are, and the digest if nothing changed meanwhile.
        """
        sources = await self._sources(owner, holders, living)
        state = replication_pb2.OwnerState()
        for node in sources:
            async with aclosing(self._stores.records(node, owner)) as parts:
                async for records in parts:
                    for some in _chunked([record.SerializeToString() for record in records], self._settings.part_bytes):
                        yield admin_pb2.BackupPart(tenant=owner.tenant, user=owner.user, records=some)
            state = await self._stores.state(node, owner)
        settled = len(sources) == 1 and state.digest == holders[sources[0].node_id]
        digest = state.digest if settled else b""
        yield admin_pb2.BackupPart(tenant=owner.tenant, user=owner.user, owner_digest=digest, owner_records=max(1, state.records))

    async def _sources(self, owner: Owner, holders: _Holders, living: _Living) -> list[PlacementNode]:
        """One copy of each digest, likeliest first; differences get a moment to pass, they are mostly writes on their way."""
        rank = {node.node_id: place for place, node in enumerate(self._copies.copies(*owner))}
        nodes = [living.nodes[node_id] for node_id in sorted(holders, key=lambda node_id: (rank.get(node_id, len(rank)), node_id))]
        while len(set(holders.values())) > 1 and living.pauses > 0:
            living.pauses -= 1
            await asyncio.sleep(self._settings.settle_s)
            states = await asyncio.gather(*(self._stores.state(node, owner) for node in nodes))
            holders |= {node.node_id: state.digest for node, state in zip(nodes, states, strict=True)}
        first_of = {holders[node.node_id]: node for node in reversed(nodes)}
        return [node for node in nodes if first_of[holders[node.node_id]] is node]

    async def restore(self, requests: AsyncIterator[admin_pb2.RestoreRequest]) -> admin_pb2.RestoreResponse:
        """Join the parts into every copy of their owners. Raises FieldInvalid, OwnerUnavailable when too few copies can be reached."""
        response = admin_pb2.RestoreResponse()
        async for request in requests:
            part = request.part
            if not part.tenant or not part.user:
                raise FieldInvalid("a part names its owner: pass parts on as Backup gave them", field="part.user")
            owner = Owner(part.tenant, part.user)
            response.changed += await self._push(owner, _parsed(part))
            response.records += len(part.records)
            if part.owner_records:
                response.owners += 1
                response.verified += await self._verified(owner, part.owner_digest)
        return response

    async def _push(self, owner: Owner, records: Sequence[replication_pb2.TraceRecord]) -> int:
        """How many said something new to the copy that knew least."""
        changed = 0
        for start in range(0, len(records), _MOST_PUSHED):
            some = records[start : start + _MOST_PUSHED]
            changed += max(await self._at_copies(owner, partial(self._stores.push, owner=owner, records=some)))
        return changed

    async def _verified(self, owner: Owner, digest: bytes) -> bool:
        if not digest:
            return False
        return all(state.digest == digest for state in await self._at_copies(owner, partial(self._stores.state, owner=owner)))

    async def _at_copies(self, owner: Owner, ask: Callable[[PlacementNode], Awaitable[T]]) -> list[T]:
        """What the copies say that can be reached: at least as many owners as a write needs."""
        copies = self._copies.copies(*owner)
        owners = ids(self._copies.owners(*owner))
        found = await asyncio.gather(*(self._patiently(ask, node) for node in copies))
        answers = [answer for answer in found if answer is not None]
        reached = sum(answer is not None and node.node_id in owners for node, answer in zip(copies, found, strict=True))
        if reached < self._enough(len(owners)):
            metadata = {"acked": str(reached), "wanted": str(self._enough(len(owners)))}
            raise OwnerUnavailable("too few copies of an owner answer: repeat the restore, nothing is done twice", metadata=metadata)
        return answers

    async def _patiently(self, ask: Callable[[PlacementNode], Awaitable[T]], node: PlacementNode) -> T | None:
        """None where the node stays away; a node that is busy gets its time."""
        for turn in range(self._settings.attempts):
            await asyncio.sleep(self._settings.settle_s if turn else 0.0)
            try:
                return await ask(node)
            except (Overloaded, StaleEpoch, Unavailable) as error:
                log.info("restore_repeats", node=node.node_id, reason=error.reason, turn=turn)
        return None

    def _enough(self, owners: int) -> int:
        return copies_of(types_pb2.CONSISTENCY_UNSPECIFIED, owners, self._write_copies)


def _holding(placement: Placement) -> list[PlacementNode]:
    """Members that serve what they hold; where nobody does yet, all."""
    serving = [node for node in placement.members if node.phase in (MemberPhase.ACTIVE, MemberPhase.LEAVING)]
    return serving or [node for node in placement.members if node.phase is MemberPhase.JOINING]


def _in_groups(count: int) -> Iterator[range]:
    """All buckets in so many parts: the owners of one part are in memory at a time."""
    size = -(-_BUCKETS // count)
    return (range(start, min(start + size, _BUCKETS)) for start in range(0, _BUCKETS, size))


def _chunked(records: Sequence[bytes], limit: int) -> Iterator[list[bytes]]:
    """At most `limit` bytes together; a record that is larger goes alone."""
    some: list[bytes] = []
    size = 0
    for record in records:
        if some and size + len(record) > limit:
            yield some
            some, size = [], 0
        some.append(record)
        size += len(record)
    if some:
        yield some


def _parsed(part: admin_pb2.BackupPart) -> list[replication_pb2.TraceRecord]:
    try:
        return [replication_pb2.TraceRecord.FromString(record) for record in part.records]
    except DecodeError as error:
        raise FieldInvalid(f"not a record ({error}): pass parts on as Backup gave them", field="part.records") from None
