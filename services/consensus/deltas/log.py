"""The durable log of updates: one group commit after another, and whoever waits for news is told."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ndml.errors import CapacityReached, Draining, NdmlError, Overloaded
from ndml.runtime import metrics, semconv
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import linked_span, tenant_hash, tracing
from services.consensus.deltas.entries import Delta, Entry, Key, Positions
from services.consensus.deltas.index import LogIndex
from services.consensus.deltas.ports import Change, DeltaStore, PeersHave, PlacementNow, Saved, nobody_else
from services.consensus.ports import Clock

log = get_logger(__name__)

_MOST_TENANTS = 8  # that a span names: more say nothing that these do not
_HARD = 1.25  # of max_entries and max_bytes: room for what peers have under way while authors are refused already


@dataclass(frozen=True, slots=True)
class LogBounds:
    """The settings of DeltasSection that bound the log, under the same names."""

    max_entries: int = 100_000
    max_bytes: int = 256 << 20
    max_authors: int = 4096
    queue_bytes: int = 64 << 20
    recent_bytes: int = 16 << 20


class LogListener(Protocol):
    """Whoever passes on what the log has."""

    def grew(self) -> None:
        """There are new entries, or something to tell a node."""
        ...

    def delivered(self, node_id: str, authors: Sequence[int]) -> None:
        """The node has more of these authors."""
        ...


@dataclass(slots=True)
class _Job:
    taken: Sequence[Delta]
    refused: Sequence[Delta]
    size: int
    done: asyncio.Future[None]


class DeltaLog:
    """Component. Entries come in by `append` and are in `index` when they are on disk. Belongs to one event loop."""

    def __init__(self, store: DeltaStore, bounds: LogBounds, placement: PlacementNow, clock: Clock) -> None:
        self.index = LogIndex(bounds.max_authors)
        self.clock = clock
        self.placement = placement
        self.taken = 0
        """Updates that were new, since the start."""
        self.erasing: deque[Delta] = deque(maxlen=bounds.max_entries)
        """New updates with erasures in them, for whoever takes them from here."""
        self.peers_have: PeersHave = nobody_else
        """What the linked consensus nodes have: nothing is dropped at a bound before it was passed on."""
        self._store = store
        self._bounds = bounds
        self._queue: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._pending = Change()
        self._recent: OrderedDict[Key, bytes] = OrderedDict()
        self._recent_bytes = 0
        self._listeners: list[LogListener] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        metrics.DELTA_LOG_LIMIT.labels("entries").set(bounds.max_entries)
        metrics.DELTA_LOG_LIMIT.labels("bytes").set(bounds.max_bytes)

    async def start(self) -> None:
        """Raises OSError, StoreUnavailable."""
        self._restore(await self._store.open())
        self._measure()
        log.info("delta_log_open", entries=len(self.index), bytes=self.index.bytes, authors=len(self.index.positions))
        self._task = asyncio.create_task(self._run(), name="delta-log")

    async def stop(self) -> None:
        """Commit what is queued, then close."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})
        await self._store.close()

    def subscribe(self, listener: LogListener) -> Callable[[], None]:
        """Tell `listener` from now on; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def append(self, taken: Sequence[Delta], refused: Sequence[Delta] = (), *, passed_on: bool = False) -> None:
        """Return when the updates are on disk, those included that were there already. `refused` ones only move their author's position.

        Each author's must come in order. `passed_on`: by a peer, which may be full itself of what it cannot drop before this is taken:
        two that refuse each other would wait for ever. So a full log takes it, and drops at a second, hard bound whatever is oldest.
        Raises Overloaded past `queue_bytes` or where the log is full and may not drop yet, CapacityReached past `max_authors`,
        StoreUnavailable when the disk fails, Draining after stop().
        """
        size = sum(delta.entry.size for delta in taken)
        if self._waiting_bytes and self._waiting_bytes + size > self._bounds.queue_bytes:
            raise Overloaded(f"{self._waiting_bytes} bytes of updates wait for the disk (deltas.queue_bytes): come back shortly")
        if self._is_full() and not self._keep_bounds():
            if not passed_on:
                raise Overloaded(
                    "the log is full of updates that other consensus nodes have yet to take (deltas.max_entries, deltas.max_bytes)"
                )
            if self._is_full(_HARD):
                self._keep_bounds(at_any_price=True)
        if self._stopping:
            raise Draining("this consensus node is stopping: another one takes the updates")
        job = _Job(taken, refused, size, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._waiting_bytes += size
        self._wake.set()
        await job.done

    async def bodies(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Bytes of updates, None where they are gone. Raises StoreUnavailable."""
        found = {key: self._recent[key] for key in keys if key in self._recent}
        missing = [key for key in keys if key not in found and key in self.index]
        if missing:
            read = await self._store.read(missing)
            found |= {key: body for key, body in zip(missing, read, strict=True) if body is not None}
            damaged = [key for key in missing if key not in found and key in self.index]
            if damaged:
                log.error("delta_damaged", updates=len(damaged), author=damaged[0][0], counter=damaged[0][1])
                self.drop(damaged)
        return [found.get(key) for key in keys]

    def deliver(self, node_id: str, replica: int, positions: Positions) -> None:
        """The node says itself that it has everything that is meant for it, up to these."""
        grown = self.index.deliver(node_id, replica, positions)
        for author, counter in grown.items():
            self._pending.delivered[node_id, author] = (replica, counter)
        if grown:
            for listener in tuple(self._listeners):
                listener.delivered(node_id, list(grown))

    def join_delivered(self, node_id: str, replica: int, positions: Positions) -> None:
        """A peer says what a node has; passed over where the node is no member, or has another store by now."""
        node = self.placement().node(node_id)
        if node is None or not node.is_member:
            return
        reader = self.index.readers.get(node_id)
        current = node.record.replica or (reader.replica if reader is not None else replica)
        if current == replica:
            self.deliver(node_id, replica, positions)

    def lacking(self, entry: Entry) -> list[str]:
        """Node ids of the copies that are not known to have the update."""
        copies = self.placement().copy_ids(entry.tenant, entry.user)
        delivered = self.index.delivered
        return [n for n in copies if n != entry.node_id and delivered(n, entry.author) < entry.counter]

    def drop(self, keys: Sequence[Key]) -> None:
        """Give up updates that copies may need: at a bound, by age, or damaged."""
        metrics.DELTAS_DROPPED.inc(len(keys))
        self.give_up(keys)

    def give_up(self, keys: Sequence[Key]) -> None:
        """Let go of updates, whoever has them: those who lack one are told to reconcile, and peers that lack it to tell theirs."""
        told = False
        for key in keys:
            entry = self.index.get(key)
            lacking = self.lacking(entry) if entry is not None else ()
            for node_id in lacking:
                self.mark_lost(node_id, *key)
            if lacking:
                self._mark_dropped(*key)
                told = True
        self.discard(keys)
        if told:
            self._tell()

    def miss(self, author: int, counter: int) -> None:
        """What is not here of the author up to `counter` will not come: whoever is not known to have got so far is told to reconcile."""
        if counter <= max(self.index.positions.get(author, 0), self.index.dropped.get(author, 0)):
            return
        placement, delivered = self.placement(), self.index.delivered
        readers = [member.node_id for member in placement.members if member.record.replica != author]
        lacking = [node_id for node_id in readers if delivered(node_id, author) < counter]
        for node_id in lacking:
            self.mark_lost(node_id, author, counter)
        self._mark_dropped(author, counter)
        log.warning("deltas_missing", author=f"{author:x}", up_to=counter, here=self.index.positions.get(author, 0), told=lacking)
        self._tell()

    def mark_lost(self, node_id: str, author: int, counter: int) -> None:
        """The node has to be told that something of the author is missing here."""
        self.index.mark_lost(node_id, author, counter)
        self._pending.lost[node_id, author] = self.index.lost[node_id][author]

    def _mark_dropped(self, author: int, counter: int) -> None:
        gone = self.index.mark_dropped(author, counter)
        if gone is not None:
            self._pending.dropped[gone] = 0
        if author in self.index.dropped:
            self._pending.dropped[author] = self.index.dropped[author]

    def clear_lost(self, node_id: str, told: Positions) -> None:
        """The node was told, and has said something since."""
        for author in self.index.clear_lost(node_id, told):
            self._pending.lost[node_id, author] = 0

    def discard(self, keys: Sequence[Key]) -> None:
        """Forget updates that nobody needs."""
        self.index.remove(keys)
        self._pending.removed.extend(keys)
        for key in keys:
            self._recent_bytes -= len(self._recent.pop(key, b""))

    def forget_node(self, node_id: str) -> None:
        """Nothing is owed to this node any more."""
        self.index.readers.pop(node_id, None)
        self.index.lost.pop(node_id, None)
        self._pending.gone.append(node_id)

    def flush(self) -> None:
        """Keep the bounds, and have what changed beside the entries made durable."""
        self._keep_bounds()
        self._measure()
        if self._pending:
            self._wake.set()

    async def _run(self) -> None:
        while not self._stopping or self._queue:
            await self._wake.wait()
            self._wake.clear()
            await self._commit()

    async def _commit(self) -> None:
        """One group: everything that queued."""
        jobs, self._queue = list(self._queue), deque()
        change, self._pending = self._pending, Change()
        began_ns = time.time_ns()
        carried = [job for job in jobs if self._carry(job, change)]
        self._waiting_bytes -= sum(job.size for job in jobs)
        if change:
            try:
                await self._store.commit(change)
            except NdmlError as error:
                self._keep(change)
                _settle(carried, error)
                return
            self._apply(change, began_ns)
        _settle(carried, None)

    def _carry(self, job: _Job, change: Change) -> bool:
        """Put into `change` what is new in the job; False where the job was refused."""
        authors = {delta.entry.author: delta.entry.node_id for delta in (*job.taken, *job.refused)}
        if not all(self._make_room(author, change) for author in authors):
            error = CapacityReached(f"{self._bounds.max_authors} authors are known (deltas.max_authors), and all are needed")
            _settle([job], error)
            return False
        reached = {author: change.positions.get(author, ("", self.index.positions.get(author, 0)))[1] for author in authors}
        for delta in job.taken:
            entry = delta.entry
            if entry.counter > reached[entry.author]:
                change.added.append(delta)
                reached[entry.author] = entry.counter
        for delta in job.refused:
            reached[delta.entry.author] = max(reached[delta.entry.author], delta.entry.counter)
        change.positions |= {author: (authors[author], counter) for author, counter in reached.items()}
        return True

    def _make_room(self, author: int, change: Change) -> bool:
        """Whether the author is known or may become so; one that nothing is held of is forgotten for it."""
        positions = self.index.positions
        if author in positions or author in change.positions:
            return True
        if len(positions) + len(change.positions.keys() - positions.keys()) < self._bounds.max_authors:
            return True
        current = {member.record.replica for member in self.placement().members}
        idle = next((a for a in positions if not (self.index.holds(a) or a in current or a in change.positions)), None)
        if idle is None:
            return False
        self.index.forget_author(idle)
        change.forgotten.append(idle)
        return True

    def _keep(self, change: Change) -> None:
        """What is not on disk yet and is no append goes into the next commit; what came meanwhile wins."""
        later = self._pending
        self._pending = Change(
            removed=change.removed + later.removed,
            forgotten=change.forgotten + later.forgotten,
            delivered=change.delivered | later.delivered,
            lost=change.lost | later.lost,
            dropped=change.dropped | later.dropped,
            gone=change.gone + later.gone,
        )

    def _apply(self, change: Change, began_ns: int) -> None:
        for delta in change.added:
            self.index.add(delta.entry)
            self._remember(delta)
            if delta.erases:
                self.erasing.append(delta)
        for author, (name, counter) in change.positions.items():
            self.index.positions[author] = max(counter, self.index.positions.get(author, 0))
            self.index.names[author] = name
        self.taken += len(change.added)
        metrics.DELTAS_TAKEN.inc(len(change.added))
        if change.added:
            _trace(change.added, began_ns)
            self._keep_bounds()
            self._tell()

    def _is_full(self, times: float = 1.0) -> bool:
        return len(self.index) > times * self._bounds.max_entries or self.index.bytes > times * self._bounds.max_bytes

    def _keep_bounds(self, *, at_any_price: bool = False) -> bool:
        """Drop the oldest where there are too many, as far as they were passed on, or all the same. False: there are too many still."""
        if not self._is_full():
            return True
        bounds, index = self._bounds, self.index
        # A little more than must go, so that a full log does not drop something with every commit.
        entries, size = bounds.max_entries * 19 // 20, bounds.max_bytes * 19 // 20
        oldest, left, left_bytes = [], len(index), index.bytes
        for entry in index:
            if left <= entries and left_bytes <= size:
                break
            if self.peers_have(entry.author) < entry.counter and not at_any_price:
                break
            oldest.append(entry.key)
            left, left_bytes = left - 1, left_bytes - entry.size
        if oldest:
            log.warning("delta_log_full", dropped=len(oldest), entries=left, bytes=left_bytes)
            self.drop(oldest)
        return not self._is_full()

    def _remember(self, delta: Delta) -> None:
        self._recent[delta.entry.key] = delta.body
        self._recent_bytes += len(delta.body)
        while self._recent_bytes > self._bounds.recent_bytes:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1])

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener.grew()

    def _measure(self) -> None:
        metrics.DELTA_LOG_ENTRIES.set(len(self.index))
        metrics.DELTA_LOG_BYTES.set(self.index.bytes)

    def _restore(self, saved: Saved) -> None:
        for entry in saved.entries:
            self.index.add(entry)
        for author, (name, counter) in saved.positions.items():
            self.index.positions[author] = max(counter, self.index.positions.get(author, 0))
            self.index.names[author] = name
        for node_id, replica, author, counter in saved.delivered:
            self.index.deliver(node_id, replica, {author: counter})
        for node_id, author, counter in saved.lost:
            self.index.mark_lost(node_id, author, counter)
        self.index.dropped.update(saved.dropped)


def _settle(jobs: Sequence[_Job], error: NdmlError | None) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)


def _trace(added: Sequence[Delta], began_ns: int) -> None:
    """A span of its own, linked to the requests whose updates it made durable: they do not wait for it."""
    traceparents = [delta.traceparent for delta in added if delta.traceparent] if tracing() else []
    if traceparents:
        attributes: Mapping[str, str | int] = {
            semconv.AUTHOR_ID: ",".join(sorted({delta.entry.node_id for delta in added})),
            semconv.BATCH_SIZE: len(added),
            semconv.BYTES: sum(delta.entry.size for delta in added),
            semconv.TENANT_HASH: ",".join(
                tenant_hash(tenant) for tenant in sorted({delta.entry.tenant for delta in added})[:_MOST_TENANTS]
            ),
        }
        with linked_span(semconv.SPAN_TAKE_DELTAS, traceparents, attributes, start_ns=began_ns):
            pass
