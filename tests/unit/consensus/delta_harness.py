"""Consensus nodes and memory nodes of a test, joined in process: real sessions, real SQLite logs, wires that can be cut."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ndml.errors import NdmlError, OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode
from services.consensus.deltas.compaction import Keeping
from services.consensus.deltas.elector import SmallestName
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.guard import OpenGuard
from services.consensus.deltas.log import DeltaLog, LogBounds
from services.consensus.deltas.mesh import Mesh, MeshTiming
from services.consensus.deltas.ports import DialedWire, Guard, Message
from services.consensus.deltas.session import SessionBounds
from services.consensus.deltas.store import SqliteDeltaStore

BOUND_S = 30.0  # of every wait; none needs a tenth of it
SESSION = SessionBounds(offer_after_s=0.0, answer_timeout_s=0.3, relay_after_s=0.2, gossip_interval_s=0.02)
TIMING = MeshTiming(retry_s=0.05, hello_timeout_s=5.0, settle_s=0.1)
KEEPING = Keeping(grace_s=0.0, max_age_s=3600.0, scan=1000)


async def eventually(reached: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(BOUND_S):
            while not reached():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


def update(replica: int, counter: int, *, previous: int = 0, user: str = "ada", size: int = 20, node: str = "") -> rpb.OwnerUpdate:
    record = rpb.TraceRecord(trace_id=counter.to_bytes(16, "big"), length=1, context=bytes(size))
    return rpb.OwnerUpdate(
        tenant="acme", user=user, replica=replica, previous=previous, counter=counter, records=[record], node_id=node or f"m{replica}"
    )  # fmt: skip


def placement_of(replicas: Iterable[int], factor: int, phase: MemberPhase = MemberPhase.ACTIVE) -> Placement:
    """Memory nodes m1, m2, … whose stores have these numbers."""
    records = [NodeRecord(f"m{r}", f"127.0.0.1:{7000 + r}", "", "general", 1, phase, r) for r in replicas]
    return Placement([PlacementNode(record, MemberState.ALIVE) for record in records], factor)


class Pipe:
    """Two wires. Every message goes through bytes, as it would outside."""

    def __init__(self) -> None:
        self.there: asyncio.Queue[bytes | None] = asyncio.Queue(4)
        self.back: asyncio.Queue[bytes | None] = asyncio.Queue(4)
        self.cut = False


class CallingEnd:
    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    def message(self) -> pb.ExchangeDeltasRequest:
        return pb.ExchangeDeltasRequest()

    async def send(self, message: Message) -> None:
        if self.pipe.cut:
            raise OwnerUnavailable("cut")
        await self.pipe.there.put(message.SerializeToString())

    async def receive(self) -> pb.ExchangeDeltasResponse | None:
        data = await self.pipe.back.get()
        if self.pipe.cut:
            raise OwnerUnavailable("cut")
        return None if data is None else pb.ExchangeDeltasResponse.FromString(data)

    async def close(self) -> None:
        self.pipe.cut = True
        # Whoever waits at the other end wakes and finds it cut.
        for queue in (self.pipe.there, self.pipe.back):
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)


class AnsweringEnd:
    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    def message(self) -> pb.ExchangeDeltasResponse:
        return pb.ExchangeDeltasResponse()

    async def send(self, message: Message) -> None:
        if self.pipe.cut:
            raise OwnerUnavailable("cut")
        await self.pipe.back.put(message.SerializeToString())

    async def receive(self) -> pb.ExchangeDeltasRequest | None:
        data = await self.pipe.there.get()
        if self.pipe.cut:
            raise OwnerUnavailable("cut")
        return None if data is None else pb.ExchangeDeltasRequest.FromString(data)


@dataclass
class InProcessDialer:
    """Dialer of a node of the same process, if that is there and can be reached."""

    address: str
    net: Net

    caller: str = ""

    async def open(self) -> CallingEnd:
        target = self.net.nodes.get(self.address)
        if target is None or (self.caller, self.address) in self.net.cuts:
            raise OwnerUnavailable(f"{self.address} is not there")
        pipe = Pipe()
        self.net.pipes.append((self.caller, self.address, pipe))
        served = target.serve(AnsweringEnd(pipe))
        served.add_done_callback(lambda task: _ended(task, pipe))
        return CallingEnd(pipe)

    async def close(self) -> None:
        """Nothing is shared."""


def _ended(task: asyncio.Task[None], pipe: Pipe) -> None:
    if not task.cancelled():
        task.exception()
    if pipe.back.full():
        pipe.back.get_nowait()
    pipe.back.put_nowait(None)


@dataclass
class Net:
    """Consensus nodes by name, as far as they run."""

    nodes: dict[str, DeltaExchange] = field(default_factory=dict)
    cuts: set[tuple[str, str]] = field(default_factory=set)
    pipes: list[tuple[str, str, Pipe]] = field(default_factory=list)

    async def separate(self, ones: Iterable[str], others: Iterable[str]) -> None:
        pairs = {(a, b) for a in ones for b in others}
        pairs |= {(b, a) for a, b in pairs}
        self.cuts |= pairs
        for a, b, pipe in self.pipes:
            if (a, b) in pairs:
                await CallingEnd(pipe).close()


def exchange(
    path: Path,
    placement: Callable[[], Placement],
    name: str = "c1",
    *,
    zone: str = "z",
    net: Net | None = None,
    peers: Sequence[str] = (),
    bounds: LogBounds | None = None,
    session: SessionBounds = SESSION,
    keeping: Keeping = KEEPING,
    guard: Guard | None = None,
    author_updates_per_s: float = 0.0,
) -> DeltaExchange:
    net = net or Net()
    log = DeltaLog(SqliteDeltaStore(path / name, time.monotonic), bounds or LogBounds(), placement, time.monotonic)
    guard = guard or OpenGuard()
    dialers = [InProcessDialer(peer, net, name) for peer in peers]
    mesh = Mesh(name, zone, dialers, log, guard, session, TIMING, rng=random.Random(name))
    mesh.elect_with(lambda nodes: SmallestName(nodes.node_id, nodes.neighbours))
    return DeltaExchange(log, mesh, guard, session, keeping, compact_interval_s=0.02, author_updates_per_s=author_updates_per_s)


@asynccontextmanager
async def running(*nodes: DeltaExchange, net: Net | None = None) -> AsyncIterator[None]:
    try:
        for node in nodes:
            await node.start()
            if net is not None:
                net.nodes[node.mesh.node_id] = node
        yield
    finally:
        for node in nodes:
            await node.stop()


class Member:
    """A memory node's side: says hello, writes, answers offers by what it has, and takes what it wanted.

    has      author -> counters that it has got
    refuses  takes no update while it is set: its disk is full
    """

    def __init__(self, replica: int, node: str = "") -> None:
        self.replica = replica
        self.node = node or f"m{replica}"
        self.has: dict[int, set[int]] = {}
        self.bodies: dict[tuple[int, int], rpb.OwnerUpdate] = {}
        self.offers: list[tuple[int, int]] = []
        self.lost: dict[int, int] = {}
        self.acked = 0
        self.acked_here = 0
        self.position = -1
        self.where = ""
        self.refuses = False
        self.mute = False
        self.floor = 0
        self._wire: DialedWire | None = None
        self._task: asyncio.Task[None] | None = None

    async def attach(self, node: DeltaExchange) -> None:
        pipe = Pipe()
        served = node.serve(AnsweringEnd(pipe))
        served.add_done_callback(lambda task: _ended(task, pipe))
        await self.attach_to(CallingEnd(pipe))

    async def attach_to(self, wire: DialedWire) -> None:
        await self.detach()
        self._wire = wire
        hello = pb.DeltaHello(node_id=self.node, replica=self.replica)
        if self.floor:
            hello.positions.append(rpb.Head(replica=self.replica, counter=self.floor))
        await self._wire.send(pb.ExchangeDeltasRequest(hello=hello))
        first = await self._wire.receive()
        assert first is not None and first.HasField("hello"), "refused"
        self.acked_here = 0
        self.position = next((head.counter for head in first.hello.positions if head.replica == self.replica), 0)
        self._task = asyncio.create_task(self._listen(self._wire))

    async def detach(self) -> None:
        if self._wire is not None and self._task is not None:
            await self._wire.close()
            await asyncio.wait({self._task})
            self._wire = self._task = None

    @property
    def attached(self) -> bool:
        return self._task is not None and not self._task.done()

    async def write(self, *updates: rpb.OwnerUpdate) -> None:
        assert self._wire is not None
        await self._wire.send(pb.ExchangeDeltasRequest(updates=updates))

    async def write_durably(self, *updates: rpb.OwnerUpdate) -> None:
        await self.write(*updates)
        await eventually(lambda: self.acked >= updates[-1].counter, f"{self.node}'s {updates[-1].counter} is acked")

    async def say(self, message: pb.ExchangeDeltasRequest) -> None:
        assert self._wire is not None
        await self._wire.send(message)

    async def _listen(self, wire: DialedWire) -> None:
        try:
            while (message := await wire.receive()) is not None:
                assert isinstance(message, pb.ExchangeDeltasResponse)
                await self._hear(wire, message)
        except NdmlError:
            return

    async def _hear(self, wire: DialedWire, message: pb.ExchangeDeltasResponse) -> None:
        for head in message.acked:
            self.acked = max(self.acked, head.counter)
            self.acked_here = max(self.acked_here, head.counter)
        for head in message.lost:
            self.lost[head.replica] = max(head.counter, self.lost.get(head.replica, 0))
        answers = []
        for offer in message.offers:
            self.offers.append((offer.replica, offer.counter))
            wanted = offer.counter not in self.has.get(offer.replica, ())
            answers.append(pb.DeltaAnswer(replica=offer.replica, counter=offer.counter, wanted=wanted))
        for one in () if self.refuses else message.updates:
            self.has.setdefault(one.replica, set()).add(one.counter)
            self.bodies[one.replica, one.counter] = one
            answers.append(pb.DeltaAnswer(replica=one.replica, counter=one.counter))
        if answers and not self.mute:
            await wire.send(pb.ExchangeDeltasRequest(answers=answers))
