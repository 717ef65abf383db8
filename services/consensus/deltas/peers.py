"""Two consensus nodes: each passes on what the other has not got, whoever called whom.

What an author or another zone brought goes out at once. What a neighbour brought goes to other neighbours only if they have not said
after a while that they have it: every neighbour is linked to every other, and as a rule has it from the same source.

What was dropped here before the peer had it is told before anything that lies past it: the peer would take what comes for all there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ndml.errors import FieldInvalid
from ndml.internal.v1 import consensus_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.consensus.deltas.entries import Entry, Via, delta_of, heads_of, positions_of
from services.consensus.deltas.log import DeltaLog
from services.consensus.deltas.ports import Guard, Message, Wire
from services.consensus.deltas.session import SessionBounds, chunks, first_of, send_proofs, within

log = get_logger(__name__)

_ROWS = 4096  # of what nodes have, in one message
_BATCH = 64  # updates read from disk at once


class PeerSession:
    """Runs until the peer or the wire ends it. Both hellos have been said.

    has   author -> position that the peer says it has on disk
    sent  updates that went to it
    """

    def __init__(self, peer: pb.DeltaHello, via: Via, wire: Wire, log: DeltaLog, guard: Guard, bounds: SessionBounds) -> None:
        self.node_id = peer.node_id
        self.via = via
        self.sent = 0
        self._wire = wire
        self._log = log
        self._guard = guard
        self._bounds = bounds
        self.has: dict[int, int] = positions_of(peer.positions, bounds.max_authors, "hello.positions")
        self._cursor = dict(self.has)
        self._in_flight: dict[int, list[int]] = {}
        self._told: dict[int, int] = {}
        self._lost_told: dict[int, int] = {}
        self._dirty: dict[str, set[int]] = {node: set(reader.positions) for node, reader in log.index.readers.items()}
        self._proofs: set[bytes] = set()
        self._closed = False
        self._wake = asyncio.Event()

    def grew(self) -> None:
        self._wake.set()

    def delivered(self, node_id: str, authors: Sequence[int]) -> None:
        self._dirty.setdefault(node_id, set()).update(authors)

    def end(self) -> None:
        """End the session soon."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Raises NdmlError where the peer breaks a rule, or the wire breaks."""
        unsubscribe = self._log.subscribe(self)
        try:
            await first_of(self._take_all(), self._pass_on(), self._gossip())
        finally:
            unsubscribe()

    async def _take_all(self) -> None:
        while (message := await self._wire.receive()) is not None:
            await self._take(message)

    async def _take(self, message: Message) -> None:
        if message.proofs:
            self._proofs.update(message.proofs)
            await self._guard.learn(message.proofs)
        for row in message.delivered:
            self._log.join_delivered(
                row.node_id, row.replica, positions_of(row.positions, self._bounds.max_authors, "delivered.positions")
            )  # fmt: skip
        for author, counter in positions_of(message.lost, self._bounds.max_authors, "lost").items():
            self._log.miss(author, counter)
        if message.updates:
            await self._take_updates(message.updates)
        for author, counter in positions_of(message.acked, self._bounds.max_authors, "acked").items():
            self._note(author, counter)
        self._wake.set()

    async def _take_updates(self, updates: Sequence[rpb.OwnerUpdate]) -> None:
        now, limit = self._log.clock(), self._bounds.max_update_bytes
        deltas = [delta_of(update, now, self.via, limit, f"updates[{i}]") for i, update in enumerate(updates)]
        refusals = await self._guard.refusals(updates)
        if refusals:
            # Passed over: the peer is not their author, and must not be cut off for what somebody else wrote.
            metrics.DELTAS_REFUSED.inc(len(refusals))
            log.warning("deltas_refused", peer=self.node_id, updates=len(refusals), why=next(iter(refusals.values())))
        taken = [delta for i, delta in enumerate(deltas) if i not in refusals]
        await self._log.append(taken, [deltas[i] for i in refusals], passed_on=True)
        for delta in deltas:
            author, counter = delta.entry.key
            self._cursor[author] = max(counter, self._cursor.get(author, 0))
            self.has[author] = max(counter, self.has.get(author, 0))
        await self._send_acked({delta.entry.author for delta in deltas})

    def _note(self, author: int, counter: int) -> None:
        self.has[author] = max(counter, self.has.get(author, 0))
        self._cursor[author] = max(counter, self._cursor.get(author, 0))
        if author in self._in_flight:
            left = [sent for sent in self._in_flight[author] if sent > counter]
            if left:
                self._in_flight[author] = left
            else:
                del self._in_flight[author]

    async def _send_acked(self, authors: set[int]) -> None:
        positions = self._log.index.positions
        news = {a: positions[a] for a in authors if a in positions and positions[a] != self._told.get(a)}
        if news:
            message = self._wire.message()
            message.acked.extend(heads_of(news.items()))
            self._told |= news
            await self._wire.send(message)

    async def _gossip(self) -> None:
        """What this node has, and what memory nodes have, now and then: others need not bring it, and it may be forgotten."""
        while not self._closed:
            await self._send_acked(set(self._log.index.positions))
            await self._send_delivered()
            await send_proofs(self._wire, self._guard, self._proofs)
            await asyncio.sleep(self._bounds.gossip_interval_s)

    async def _send_delivered(self) -> None:
        dirty, self._dirty = self._dirty, {}
        message, rows = self._wire.message(), 0
        for node_id, authors in dirty.items():
            reader = self._log.index.readers.get(node_id)
            if reader is None:
                continue
            positions = [(author, reader.positions[author]) for author in authors if author in reader.positions]
            message.delivered.append(pb.NodePositions(node_id=node_id, replica=reader.replica, positions=heads_of(positions)))
            rows += len(positions)
            if rows >= _ROWS:
                await self._wire.send(message)
                message, rows = self._wire.message(), 0
        if message.delivered:
            await self._wire.send(message)

    async def _pass_on(self) -> None:
        while not self._closed:
            await self._send_lost()
            due = await self._send_updates()
            await within(self._wake, due)

    async def _send_lost(self) -> None:
        """Authors of whom the peer lacks something that nobody gets from here any more."""
        known, told = self.has, self._lost_told
        news = {a: c for a, c in self._log.index.dropped.items() if c > max(known.get(a, 0), told.get(a, 0))}
        if news:
            # Who is known to be past it has been told, or had it.
            await self._send_delivered()
            message = self._wire.message()
            message.lost.extend(heads_of(news.items()))
            told |= news
            await self._wire.send(message)

    async def _send_updates(self) -> float | None:
        """Send what is due; returns the seconds until the next update is, if one waits for its time."""
        due: float | None = None
        for author, position in list(self._log.index.positions.items()):
            while self._cursor.get(author, 0) < position and not self._closed:
                room = self._bounds.peer_in_flight - sum(map(len, self._in_flight.values()))
                entries = self._log.index.after(author, self._cursor.get(author, 0), max(0, min(_BATCH, room)))
                ready, wait = self._ready(entries)
                await self._send(author, ready)
                if wait is not None:
                    due = wait if due is None else min(due, wait)
                    break
                if room <= 0:
                    return due
                if not entries:
                    self._cursor[author] = position
        return due

    def _ready(self, entries: Sequence[Entry]) -> tuple[Sequence[Entry], float | None]:
        """Entries that may go now, and how long the first of the others has to wait."""
        now = self._log.clock()
        for i, entry in enumerate(entries):
            wait = entry.arrived + self._bounds.relay_after_s - now
            if entry.via is self.via and wait > 0:
                return entries[:i], wait
        return entries, None

    async def _send(self, author: int, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        bodies = await self._log.bodies([entry.key for entry in entries])
        await self._send_lost()  # some of these may have gone since they were looked up
        # Before it is sent: the ack may be here before the next line runs.
        self._cursor[author] = max(entries[-1].counter, self._cursor.get(author, 0))
        there = {entry.counter: body for entry, body in zip(entries, bodies, strict=True) if body is not None}
        self._in_flight.setdefault(author, []).extend(counter for counter in there if counter > self.has.get(author, 0))
        if not self._in_flight[author]:
            del self._in_flight[author]
        for part in chunks(there.values(), self._bounds.message_bytes):
            message = self._wire.message()
            message.updates.extend(part)
            await self._wire.send(message)
            self.sent += len(part)
            if self.via is Via.WIDE:
                metrics.DELTAS_CROSS_ZONE.inc(len(part))


def hello_of(node_id: str, zone: str, positions: Mapping[int, int]) -> pb.DeltaHello:
    """What a consensus node says first."""
    return pb.DeltaHello(node_id=node_id, zone=zone, positions=heads_of(positions.items()))


def check_peer(hello: pb.DeltaHello, own: str) -> None:
    """Raises FieldInvalid where the other side is no other consensus node."""
    if hello.replica:
        raise FieldInvalid("a consensus node has no store: replica must be 0", field="hello.replica")
    if not hello.node_id or hello.node_id == own:
        raise FieldInvalid(f"{hello.node_id!r} must name another consensus node: give each its own server.instance", field="hello.node_id")
