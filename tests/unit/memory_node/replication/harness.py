"""Replication without disk or wire: stores in memory, on the lattice that the real one has, a network that loses, and a small consensus."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.digests import NOTHING, owner_digest
from ndml.crdt.record import TraceRecord, Version
from ndml.errors import OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import MemberPhase
from services.memory_node.records import Owner
from services.memory_node.replication.component import Replication, World
from services.memory_node.replication.ports import Digests, Member
from services.memory_node.replication.settings import ReplicationSection
from tests.sim.network import Lost, Network, Weather

T = TypeVar("T")

ALICE, BOB = Owner("t", "alice"), Owner("t", "bob")


def trace_id(seed: object) -> bytes:
    return blake2b(repr(seed).encode(), digest_size=16).digest()


def to_wire(record: TraceRecord) -> rpb.TraceRecord:
    message = rpb.TraceRecord(trace_id=record.trace_id, length=record.length, context=record.context.to_bytes())
    for dot, version in record.versions.items():
        message.versions.add(dot=rpb.Dot(replica=dot.replica, counter=dot.counter), clock=version.clock, content=version.content)
    return message


def from_wire(message: rpb.TraceRecord) -> TraceRecord:
    versions = {Dot(v.dot.replica, v.dot.counter): Version(v.clock, v.content, b"", 0.5, 0.5) for v in message.versions}
    return TraceRecord(message.trace_id, message.length, versions, CausalContext.from_bytes(message.context))


class Row(NamedTuple):
    sequence: int
    owner: Owner
    previous: int
    trace_ids: tuple[bytes, ...]


class MemoryStore:
    """A LocalStore and its reader. `fail`: raised by the next join; `capacity` of each owner."""

    def __init__(self, replica: int) -> None:
        self.replica = replica
        self.last_sequence = 0
        self.held: dict[Owner, dict[bytes, TraceRecord]] = defaultdict(dict)
        self.known: dict[Owner, dict[int, int]] = defaultdict(dict)
        self.rows: list[Row] = []
        self.joins = 0
        self.fail: list[Exception] = []

    # Its own writes

    def write(self, owner: Owner, *ids: bytes, text: str = "", journal: bool = True) -> None:
        for one in ids:
            old = self.held[owner].get(one, TraceRecord(one))
            version = Version(self.last_sequence + 1, text.encode() or one, b"", 0.5, 0.5)
            self.held[owner][one] = old.joined(old.written(old.context.next(self.replica), version, list(old.versions)))
        self._authored(owner, ids, journal)

    def erase(self, owner: Owner, *ids: bytes) -> None:
        for one in ids:
            self.held[owner][one] = TraceRecord(one).erased()
        self._authored(owner, ids, True)

    def _authored(self, owner: Owner, ids: tuple[bytes, ...], journal: bool) -> None:
        self.last_sequence += len(ids)
        previous = self.known[owner].get(self.replica, 0)
        self.known[owner][self.replica] = self.last_sequence
        if journal:
            self.rows.append(Row(self.last_sequence, owner, previous, ids))

    # LocalStore

    async def call(self, work: Callable[[Any], T]) -> T:
        await asyncio.sleep(0)
        return work(self)

    async def join(self, owner: Owner, action: pb.MergeAction) -> pb.MergeResult:
        await asyncio.sleep(0.001)
        if self.fail:
            raise self.fail.pop(0)
        self.joins += 1
        changed = sum(self._join(owner, from_wire(record)) for record in action.records)
        for update in sorted(action.updates, key=lambda update: update.counter):
            changed += sum(self._join(owner, from_wire(record)) for record in update.records)
            if update.previous <= self.known[owner].get(update.replica, 0):
                self._raise_head(owner, update.replica, update.counter)
        for head in action.heads:
            self._raise_head(owner, head.replica, head.counter)
        self.last_sequence += changed
        return pb.MergeResult(changed=changed, sequence=self.last_sequence, heads=_heads(self.known[owner]))

    def _join(self, owner: Owner, record: TraceRecord) -> bool:
        old = self.held[owner].get(record.trace_id, TraceRecord(record.trace_id))
        self.held[owner][record.trace_id] = new = old.joined(record)
        return new != old

    def _raise_head(self, owner: Owner, replica: int, counter: int) -> None:
        self.known[owner][replica] = max(counter, self.known[owner].get(replica, 0))

    async def written(self) -> None:
        """A commit here is on disk at once."""

    async def prune(self, up_to: int) -> None:
        self.rows = [row for row in self.rows if row.sequence > up_to]

    async def drop(self, owner: Owner, digest: bytes) -> bool:
        if self.owner_state(owner).digest != digest:
            return False
        self.held.pop(owner, None)
        self.last_sequence += 1
        return True

    async def settle(self, owner: Owner, digest: bytes, absent: str) -> bool:
        return False

    # ReplicaReader

    def snapshot(self) -> nullcontext[None]:
        return nullcontext()

    def owners(self, after: Owner | None, limit: int) -> Sequence[Owner]:
        return [owner for owner in sorted(self.held) if self.held[owner] and (after is None or owner > after)][:limit]

    def changed_owners(self, after: int) -> Sequence[Owner]:
        return list(self.held)

    def owner_state(self, owner: Owner) -> rpb.OwnerState:
        records = self.held.get(owner, {})
        digest = owner_digest([record.digest() for record in records.values()]) if records else NOTHING
        heads = _heads(self.known.get(owner, {}))
        return rpb.OwnerState(tenant=owner.tenant, user=owner.user, digest=digest, records=len(records), heads=heads)

    def record_digests(self, owner: Owner) -> tuple[Digests, Digests]:
        records = self.held.get(owner, {})
        digests, ids = b"".join(record.digest() for record in records.values()), b"".join(records)
        return np.frombuffer(digests, np.uint8).reshape(-1, 16), np.frombuffer(ids, np.uint8).reshape(-1, 16)

    def records(self, owner: Owner, trace_ids: Sequence[bytes] | None) -> Iterator[rpb.TraceRecord]:
        records = self.held.get(owner, {})
        return (to_wire(records[one]) for one in (records if trace_ids is None else trace_ids) if one in records)

    def heads(self, owner: Owner) -> dict[int, int]:
        return dict(self.known.get(owner, {}))

    def shown(self, owner: Owner) -> dict[int, int]:
        return self.heads(owner)

    def unsettled(self, limit: int) -> Sequence[Owner]:
        return []

    def journal(self, after: int, limit: int) -> Sequence[Row]:
        return [row for row in self.rows if row.sequence > after][:limit]

    def journal_size(self, after: int) -> int:
        return sum(row.sequence > after for row in self.rows)

    def journal_keep(self, rows: int) -> int:
        old = self.rows[: len(self.rows) - rows] if rows < len(self.rows) else []
        return old[-1].sequence if old else 0

    def conflicts(self) -> int:
        return sum(len(record.versions) > 1 for records in self.held.values() for record in records.values())

    def update_of(self, row: Any) -> rpb.OwnerUpdate:
        records = self.records(row.owner, row.trace_ids)
        owner = row.owner
        return rpb.OwnerUpdate(
            tenant=owner.tenant, user=owner.user, replica=self.replica, previous=row.previous, counter=row.sequence, records=records
        )


def _heads(known: dict[int, int]) -> list[rpb.Head]:
    return [rpb.Head(replica=replica, counter=counter) for replica, counter in sorted(known.items())]


class Map:
    """The placement of a test: every node serves every owner unless `serving` or `taking` say otherwise."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.epoch = 1
        self.nodes = list(nodes)
        self.serving: dict[Owner, list[str]] = {}
        self.taking: dict[Owner, list[str]] = {}
        self.phases = dict.fromkeys(nodes, MemberPhase.ACTIVE)
        self.dead: set[str] = set()
        self.changed: list[Callable[[], None]] = []

    def change(self) -> None:
        self.epoch += 1
        for tell in self.changed:
            tell()


@dataclass
class MapShares:
    map: Map
    node_id: str
    replication_factor = 3

    @property
    def epoch(self) -> int:
        return self.map.epoch

    @property
    def phase(self) -> MemberPhase:
        return self.map.phases[self.node_id]

    def owners(self, tenant: str, user: str) -> Sequence[str]:
        return self.map.serving.get(Owner(tenant, user), self.map.nodes)

    def copies(self, tenant: str, user: str) -> Sequence[str]:
        serving = self.owners(tenant, user)
        return [*serving, *(node for node in self.map.taking.get(Owner(tenant, user), []) if node not in serving)]

    def partners(self) -> Sequence[Member]:
        leaving = (MemberPhase.LEAVING, MemberPhase.LEFT)
        return [
            Member(node, node, node not in self.map.dead, phase not in leaving)
            for node, phase in self.map.phases.items()
            if node != self.node_id and phase is not MemberPhase.LEFT
        ]


class NetworkPartner:
    """A partner across the network: each message of a stream may be the one that is lost."""

    def __init__(self, network: Network, source: str, target: str, suite: Suite) -> None:
        self._network, self._source, self._target, self._suite = network, source, target, suite

    @property
    def _answers(self) -> Any:
        return self._suite.nodes[self._target].replication.answers

    async def compare(self, request: rpb.CompareBucketsRequest) -> rpb.CompareBucketsResponse:
        return await self._call(lambda: self._answers.compare(request))

    async def push(self, request: rpb.PushRecordsRequest) -> rpb.PushRecordsResponse:
        self._suite.bytes["pushed"] += request.ByteSize()
        return await self._call(lambda: self._answers.push(request))

    def list_owners(self, request: rpb.ListOwnersRequest) -> AsyncIterator[rpb.ListOwnersResponse]:
        return self._stream("owners", self._answers.list_owners(request))

    def symbols(self, request: rpb.StreamSymbolsRequest) -> AsyncIterator[rpb.StreamSymbolsResponse]:
        return self._stream("symbols", self._answers.symbols(request))

    def fetch(self, request: rpb.FetchRecordsRequest) -> AsyncIterator[rpb.FetchRecordsResponse]:
        return self._stream("fetched", self._answers.fetch(request))

    async def _call(self, serve: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._network.call(self._source, self._target, serve)
        except Lost as lost:
            raise OwnerUnavailable(f"lost: {lost}") from None

    async def _stream(self, name: str, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        answered: list[Any] = []
        while True:
            at = len(answered)

            async def following(at: int = at) -> Any:
                if at == len(answered):  # a request that the network repeats is answered alike
                    answered.append(await anext(messages, None))
                return answered[at]

            message = await self._call(following)
            if message is None:
                return
            self._suite.bytes[name] += message.ByteSize()
            yield message


@dataclass
class Hub:
    """A consensus node, as small as it can be: a log of `room` updates, offers to everybody else."""

    network: Network
    room: int = 1000
    name: str = "hub"
    log: dict[tuple[int, int], rpb.OwnerUpdate] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    delivered: dict[int, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    lost: dict[int, int] = field(default_factory=dict)
    sessions: list[HubSession] = field(default_factory=list)
    greets: bool = True
    updates_sent: int = 0

    def take(self, update: rpb.OwnerUpdate) -> None:
        if update.counter > self.positions.get(update.replica, 0):
            self.log[update.replica, update.counter] = update
            self.positions[update.replica] = update.counter
        while len(self.log) > self.room:
            replica, counter = next(iter(self.log))
            del self.log[replica, counter]
            self.lost[replica] = counter

    def offers_for(self, replica: int) -> list[cpb.DeltaOffer]:
        done = self.delivered[replica]
        return [_offer(update) for key, update in self.log.items() if key[0] != replica and key not in done]


def _offer(update: rpb.OwnerUpdate) -> cpb.DeltaOffer:
    return cpb.DeltaOffer(tenant=update.tenant, user=update.user, replica=update.replica, previous=update.previous, counter=update.counter)


class HubSession:
    """One node's exchange. Everything is lost at once when the network is cut: that is what a broken connection is."""

    def __init__(self, hub: Hub, node_id: str) -> None:
        self._hub, self._node_id = hub, node_id
        self._out: asyncio.Queue[cpb.ExchangeDeltasResponse | None] = asyncio.Queue()
        self._replica = 0
        self.mute = False
        hub.sessions.append(self)

    def _check(self) -> None:
        if not self._hub.network.passes(self._node_id, self._hub.name):
            raise OwnerUnavailable("the connection broke")

    async def send(self, message: cpb.ExchangeDeltasRequest) -> None:
        await asyncio.sleep(0.001)
        self._check()
        hub, answer = self._hub, cpb.ExchangeDeltasResponse()
        if message.HasField("hello"):
            if not hub.greets:
                return
            self._replica = message.hello.replica
            own = rpb.Head(replica=self._replica, counter=hub.positions.get(self._replica, 0))
            answer.hello.CopyFrom(cpb.DeltaHello(node_id=hub.name, positions=[own]))
            answer.lost.extend(rpb.Head(replica=replica, counter=counter) for replica, counter in hub.lost.items())
            answer.offers.extend(hub.offers_for(self._replica))
        for update in message.updates:
            hub.take(update)
            for other in hub.sessions:
                if other._replica not in (0, update.replica):
                    other._out.put_nowait(cpb.ExchangeDeltasResponse(offers=[_offer(update)]))
            answer.acked.append(rpb.Head(replica=update.replica, counter=update.counter))
        for reply in message.answers:
            key = reply.replica, reply.counter
            if not reply.wanted:
                hub.delivered[self._replica].add(key)
            elif key in hub.log:
                hub.updates_sent += 1
                answer.updates.append(hub.log[key])
        if answer.ByteSize() and not self.mute:
            self._out.put_nowait(answer)

    async def receive(self) -> cpb.ExchangeDeltasResponse | None:
        while True:
            self._check()
            try:
                async with asyncio.timeout(0.1):
                    return await self._out.get()
            except TimeoutError:
                continue

    async def close(self) -> None:
        self._hub.sessions.remove(self)


@dataclass
class SuiteNode:
    store: Any
    replication: Replication
    phases: OwnPhase
    paused: list[bool]


class OwnPhase:
    """A Membership whose word is in the map a moment later."""

    def __init__(self, map_: Map, node_id: str) -> None:
        self._map, self._node_id = map_, node_id
        self.phase = MemberPhase.ACTIVE

    async def set_phase(self, phase: MemberPhase) -> None:
        self.phase = phase

        def arrive() -> None:
            self._map.phases[self._node_id] = phase
            self._map.change()

        asyncio.get_running_loop().call_later(0.05, arrive)


class Suite:
    """Nodes n0, n1, … with a hub."""

    def __init__(
        self,
        nodes: int,
        seed: int = 1,
        weather: Weather | None = None,
        hub: bool = True,
        make_store: Callable[[str], Any] | None = None,
        make_guard: Callable[[str, Any], Any] | None = None,
        **sections: dict[str, Any],
    ) -> None:
        self.random = Random(seed)
        self.network = Network(self.random, weather or Weather())
        self.map = Map([f"n{i}" for i in range(nodes)])
        self.hub = Hub(self.network)
        self.bytes: dict[str, int] = defaultdict(int)
        self.settings = ReplicationSection.model_validate(sections)
        self._with_hub = hub
        self._make_store = make_store
        self._make_guard = make_guard
        self.nodes: dict[str, SuiteNode] = {}
        for i in range(nodes):
            self.add(f"n{i}", i + 1)

    def add(self, name: str, replica: int) -> SuiteNode:
        """A node with an empty store; one of that name before is replaced."""
        store = MemoryStore(replica) if self._make_store is None else self._make_store(name)
        shares, phases = MapShares(self.map, name), OwnPhase(self.map, name)
        phases.phase = self.map.phases.setdefault(name, MemberPhase.ACTIVE)
        partners = {other: NetworkPartner(self.network, name, other, self) for other in [*self.map.phases, name]}

        async def attach(address: str) -> HubSession:
            return HubSession(self.hub, name)

        paused: list[bool] = []
        loop = asyncio.get_running_loop()
        world = World(
            store,
            shares,
            lambda node_id: partners.setdefault(node_id, NetworkPartner(self.network, name, node_id, self)),
            attach,
            None if self._make_guard is None else self._make_guard(name, store),
            clock=loop.time,
            rng=Random(self.random.random()),
        )
        replication = Replication(self.settings, world, ["hub"] if self._with_hub else [], "", phases, paused.append)
        self.map.changed.append(replication.placement_changed)
        self.nodes[name] = node = SuiteNode(store, replication, phases, paused)
        return node

    def store(self, i: int) -> Any:
        return self.nodes[f"n{i}"].store

    async def start(self) -> None:
        for node in self.nodes.values():
            await node.replication.start()

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.replication.stop()

    async def round(self, i: int) -> Any:
        return await self.nodes[f"n{i}"].replication.sweeper.round()

    def digests(self, owner: Owner = ALICE) -> set[bytes]:
        """Of the owner at its copies: one, where they are equal."""
        copies = MapShares(self.map, "n0").copies(*owner)
        return {self.nodes[name].store.owner_state(owner).digest for name in copies}

    async def until_equal(self, owner: Owner, limit_s: float = 600.0) -> None:
        """Wait until the owner's copies are equal. Raises TimeoutError."""
        await self.until(lambda: len(self.digests(owner)) == 1, limit_s)

    async def until(self, what: Callable[[], bool], limit_s: float = 600.0) -> None:
        """Raises TimeoutError on the virtual clock."""
        async with asyncio.timeout(limit_s):
            while not what():
                await asyncio.sleep(0.05)
