"""One memory node at this consensus node: takes what it wrote, offers what others wrote for it, remembers what it has.

Offers go out in each author's order. The node answers each: it has the update, or wants it, and answers again when that is durable too.
What lies before its oldest open offer is delivered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from ndml.crdt.rates import AuthorRates
from ndml.errors import FieldInvalid
from ndml.internal.v1 import consensus_pb2 as pb
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.consensus.deltas.entries import MAX_COUNTER, Entry, Key, Via, check_position, delta_of, heads_of, positions_of
from services.consensus.deltas.log import DeltaLog
from services.consensus.deltas.ports import Guard, Message, Wire
from services.consensus.deltas.session import SessionBounds, chunks, first_of, send_proofs, within

log = get_logger(__name__)

_SCAN = 256  # entries looked at before another task gets its turn


class MemberSession:
    """Runs until the node or the wire ends it. `hello` is the node's own; `rates`: what is taken of one author, over all its streams."""

    def __init__(
        self,
        node_id: str,
        zone: str,
        hello: pb.DeltaHello,
        wire: Wire,
        log: DeltaLog,
        guard: Guard,
        bounds: SessionBounds,
        rates: AuthorRates,
    ) -> None:
        self.node_id = hello.node_id
        self.replica = hello.replica
        self._own = (node_id, zone)
        self._hello = hello
        self._wire = wire
        self._log = log
        self._guard = guard
        self._bounds = bounds
        self._rates = rates
        self._cursor: dict[int, int] = {}
        self._open: dict[int, dict[int, float]] = {}
        self._opened = 0
        self._wanted: deque[Key] = deque()
        self._told: dict[int, int] = {}
        self._acked: int | None = None
        self._proofs: set[bytes] = set()
        self._wake = asyncio.Event()

    def grew(self) -> None:
        self._wake.set()

    def delivered(self, node_id: str, authors: Sequence[int]) -> None:
        """What this node has is told to peers, not to it."""

    async def run(self) -> None:
        """Raises NdmlError where the node breaks a rule or the wire breaks."""
        index = self._log.index
        check_position(self.replica, MAX_COUNTER, "hello")
        position = index.positions.get(self.replica, 0)
        self._note_gap(position)
        self._log.deliver(self.node_id, self.replica, {})
        self._cursor = dict(index.readers[self.node_id].positions)
        answer = self._wire.message()
        answer.hello.CopyFrom(pb.DeltaHello(node_id=self._own[0], zone=self._own[1]))
        if position:
            answer.hello.positions.extend(heads_of([(self.replica, position)]))
        await self._wire.send(answer)
        unsubscribe = self._log.subscribe(self)
        try:
            await first_of(self._take_all(), self._offer_all())
        finally:
            unsubscribe()

    def _note_gap(self, position: int) -> None:
        """A node that has let go of more than what is here gave it to a consensus node that had no time to pass it on."""
        own = positions_of(self._hello.positions, self._bounds.max_authors, "hello.positions").get(self.replica, 0)
        if own > position:
            log.warning("deltas_gone", node=self.node_id, here=position, gone_up_to=own)
            self._log.miss(self.replica, own)

    async def _take_all(self) -> None:
        while (message := await self._wire.receive()) is not None:
            await self._take(message)

    async def _take(self, message: Message) -> None:
        if self._told:
            # It has said something after it was told: it has heard.
            self._log.clear_lost(self.node_id, self._told)
            self._told = {}
        if not isinstance(message, pb.ExchangeDeltasRequest):
            raise FieldInvalid("a memory node sends requests", field="hello.replica")
        if message.proofs:
            self._proofs.update(message.proofs)
            await self._guard.learn(message.proofs)
        if message.updates:
            await self._take_updates(message)
        wanted = [self._answered(answer) for answer in message.answers]
        acked = positions_of(message.acked, self._bounds.max_authors, "acked")
        for author, counter in acked.items():
            self._close_up_to(author, counter)
        if wanted or acked:
            authors = {answer.replica for answer in message.answers} | acked.keys()
            self._log.deliver(self.node_id, self.replica, {a: self._reached(a) for a in authors if a in self._cursor})
            self._wake.set()

    async def _take_updates(self, message: pb.ExchangeDeltasRequest) -> None:
        now, limit = self._log.clock(), self._bounds.max_update_bytes
        taken = [delta_of(update, now, Via.AUTHOR, limit, f"updates[{i}]") for i, update in enumerate(message.updates)]
        at = 0
        for i, delta in enumerate(taken):
            if delta.entry.author != self.replica or delta.entry.node_id != self.node_id:
                raise FieldInvalid("a memory node sends its own updates only", field=f"updates[{i}].replica")
            if delta.entry.counter <= at:
                raise FieldInvalid("updates must come in the order of their counters", field=f"updates[{i}].counter")
            at = delta.entry.counter
        refusals = await self._guard.refusals(message.updates)
        if refusals:
            # Not passed over: an honest node with a wrong key keeps what it has written and says so.
            metrics.DELTAS_REFUSED.inc(len(refusals))
            i, why = next(iter(refusals.items()))
            raise FieldInvalid(f"the signature does not hold: {why}", field=f"updates[{i}].signature")
        await self._log.append(taken)
        self._acked = self._log.index.positions.get(self.replica, at)
        self._wake.set()
        await self._slow(len(taken))

    async def _slow(self, updates: int) -> None:
        """An author that writes too much is not read from meanwhile: what it has waits in its journal, and nobody else waits."""
        wait_s = self._rates.took(self.node_id, updates)
        if wait_s > 0:
            metrics.AUTHORS_SLOWED.labels("stream").inc()
            await asyncio.sleep(wait_s)

    def _answered(self, answer: pb.DeltaAnswer) -> bool:
        """Note one answer; those to what was not offered here say nothing."""
        opened = self._open.get(answer.replica, {})
        if answer.counter not in opened:
            return False
        if answer.wanted:
            opened[answer.counter] = self._log.clock()
            if (key := (answer.replica, answer.counter)) not in self._wanted:
                self._wanted.append(key)
        else:
            self._close(answer.replica, answer.counter)
            metrics.DELTAS_DELIVERED.inc()
        return True

    def _close(self, author: int, counter: int) -> None:
        opened = self._open.get(author, {})
        if opened.pop(counter, None) is not None:
            self._opened -= 1
        if not opened:
            self._open.pop(author, None)

    def _close_up_to(self, author: int, counter: int) -> None:
        for open_one in [c for c in self._open.get(author, {}) if c <= counter]:
            self._close(author, open_one)
        if author in self._log.index.positions:
            # Never past what has arrived here: what comes later is to be offered, whatever the node says now.
            reached = min(counter, self._log.index.positions[author])
            self._cursor[author] = max(self._cursor.get(author, 0), reached)

    def _reached(self, author: int) -> int:
        opened = self._open.get(author)
        return self._cursor[author] if not opened else min(opened) - 1

    async def _offer_all(self) -> None:
        while True:
            await self._offer_again()
            await send_proofs(self._wire, self._guard, self._proofs)
            await self._send_acked()
            await self._send_lost()
            await self._send_wanted()
            due = await self._send_offers()
            if self._open:
                again = self._bounds.answer_timeout_s
                due = again if due is None else min(due, again)
            if self._guard.signs:
                due = min(self._bounds.gossip_interval_s, self._bounds.gossip_interval_s if due is None else due)
            await within(self._wake, due)

    async def _offer_again(self) -> None:
        """What was not answered, or not taken when it came: the node's disk may have been full, or its queue."""
        now = self._log.clock()
        late = [
            (author, counter)
            for author, opened in self._open.items()
            for counter, at in opened.items()
            if now - at >= self._bounds.answer_timeout_s
        ]
        offers = []
        for key in late:
            entry = self._log.index.get(key)
            if entry is None:
                self._miss(key)
                continue
            self._open[key[0]][key[1]] = now
            offers.append(_offer(entry))
        if offers:
            await self._wire.send(pb.ExchangeDeltasResponse(offers=offers))

    def _miss(self, key: Key) -> None:
        """Offered, and gone since: dropped at the log's bound (the node finds it by comparing), or it got it elsewhere meanwhile."""
        if self._log.index.delivered(self.node_id, key[0]) < key[1]:
            self._log.mark_lost(self.node_id, *key)
        self._close(*key)

    async def _send_acked(self) -> None:
        acked, self._acked = self._acked, None
        if acked is not None:
            message = self._wire.message()
            message.acked.extend(heads_of([(self.replica, acked)]))
            await self._wire.send(message)

    async def _send_lost(self) -> None:
        lost = {a: c for a, c in self._log.index.lost.get(self.node_id, {}).items() if c > self._told.get(a, 0)}
        if lost:
            message = pb.ExchangeDeltasResponse(lost=heads_of(lost.items()))
            await self._wire.send(message)
            self._told |= lost

    async def _send_wanted(self) -> None:
        while self._wanted:
            keys = [self._wanted.popleft() for _ in range(min(len(self._wanted), _SCAN))]
            bodies = await self._log.bodies(keys)
            for part in chunks((body for body in bodies if body is not None), self._bounds.message_bytes):
                message = self._wire.message()
                message.updates.extend(part)
                await self._wire.send(message)
            gone = [key for key, body in zip(keys, bodies, strict=True) if body is None]
            for key in gone:
                self._miss(key)
            if gone:
                await self._send_lost()

    async def _send_offers(self) -> float | None:
        """Offer what may be offered now; returns the seconds until an offer that has to wait may be made, if there is one."""
        due: float | None = None
        for author, position in list(self._log.index.positions.items()):
            while self._cursor.get(author, 0) < position and author != self.replica:
                entries = self._log.index.after(author, self._cursor.get(author, 0), _SCAN)
                offers, wait = self._choose(author, entries)
                if offers:
                    await self._wire.send(pb.ExchangeDeltasResponse(offers=offers))
                if wait is not None:
                    due = wait if due is None else min(due, wait)
                    break
                if self._opened >= self._bounds.offers_in_flight:
                    return due
                if len(entries) < _SCAN:
                    self._pass(author, position)
                await asyncio.sleep(0)
        return due

    def _choose(self, author: int, entries: Sequence[Entry]) -> tuple[list[pb.DeltaOffer], float | None]:
        """Offers out of the next entries, and how long the first one left has to wait: the gateway gives most copies their updates."""
        offers: list[pb.DeltaOffer] = []
        placement, now = self._log.placement(), self._log.clock()
        for entry in entries:
            if self._opened >= self._bounds.offers_in_flight:
                break
            if placement.takes(self.node_id, entry.tenant, entry.user):
                wait = entry.arrived + self._bounds.offer_after_s - now
                if wait > 0:
                    return offers, wait
                offers.append(_offer(entry))
                self._open.setdefault(author, {})[entry.counter] = now
                self._opened += 1
            self._cursor[author] = entry.counter
        return offers, None

    def _pass(self, author: int, position: int) -> None:
        """Nothing is left of this author up to `position`."""
        self._cursor[author] = max(position, self._cursor.get(author, 0))
        self._log.deliver(self.node_id, self.replica, {author: self._reached(author)})


def _offer(entry: Entry) -> pb.DeltaOffer:
    return pb.DeltaOffer(
        tenant=entry.tenant, user=entry.user, replica=entry.author, previous=entry.previous, counter=entry.counter
    )  # fmt: skip
