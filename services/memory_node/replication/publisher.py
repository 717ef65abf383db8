"""What this node wrote, on its way to a consensus node: read from the journal in order, a bounded amount unanswered, pruned when durable.

The journal is the queue, so nothing is lost by a restart. An update's records are read when it is sent: they say at least what they said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from ndml.errors import NdmlError
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.memory_node.replication.ports import Clock, LocalStore, ReplicaReader, Sleep, UpdateGuard
from services.memory_node.replication.settings import StreamSection
from services.memory_node.requests import recent

log = get_logger(__name__)


class _Sent(NamedTuple):
    counter: int
    size: int
    at: float


class Read(NamedTuple):
    """Updates of a stretch of the journal. `through`: its end; `skipped`: updates that are too large for a message."""

    updates: list[rpb.OwnerUpdate]
    through: int
    skipped: int


class Publisher:
    """Between two `begin`s the consensus node is the same one. Belongs to the event loop."""

    def __init__(self, store: LocalStore, settings: StreamSection, guard: UpdateGuard | None, *, clock: Clock, sleep: Sleep) -> None:
        self._store = store
        self._settings = settings
        self._guard = guard
        self._clock = clock
        self._sleep = sleep
        self._cursor = 0
        self._in_flight: deque[_Sent] = deque()
        self._bytes = 0
        self._counted_at = -1
        self.durable = 0
        """Position up to which a consensus node has everything."""
        self.unpublished = 0
        """Updates past it, as of the last look."""

    async def let_go(self) -> int:
        """Position up to which the journal may have gaps: what was let go. 0: it is empty, or nothing was. Raises StoreUnavailable."""
        rows = await self._store.call(lambda reader: reader.journal(0, 1))
        return rows[0].sequence - 1 if rows else 0

    def begin(self, position: int) -> None:
        """A consensus node is there that has everything up to `position`."""
        self._cursor = min(position, self._store.last_sequence)
        self.durable = max(self.durable, self._cursor)
        self._in_flight.clear()
        self._bytes = 0

    def acked(self, position: int) -> None:
        """It has everything up to `position` on disk."""
        while self._in_flight and self._in_flight[0].counter <= position:
            self._bytes -= self._in_flight.popleft().size
        # Of what was never sent it cannot know.
        self.durable = max(self.durable, min(position, self._cursor))

    @property
    def silent_s(self) -> float:
        """Seconds that the oldest unanswered update has waited; 0: there is none."""
        return self._clock() - self._in_flight[0].at if self._in_flight else 0.0

    @property
    def drained(self) -> bool:
        """Everything that was written is durable at a consensus node, as far as the last look at the journal tells."""
        return not self._in_flight and self._cursor >= self._store.last_sequence

    async def batches(self) -> AsyncIterator[Sequence[rpb.OwnerUpdate]]:
        """Updates as they are written, in order; waits while nothing is there or too much is unanswered. Raises StoreUnavailable."""
        while True:
            if self._is_full() or self._cursor >= self._store.last_sequence:
                await self._sleep(self._settings.poll_s)
                continue
            # Looked at first: what is written during the read is past it.
            newest = self._store.last_sequence
            read = await self._read()
            if read.skipped:
                log.warning("updates_left_to_the_sweep", count=read.skipped, reason="replication.stream.update_bytes")
            updates = await self._guard.signed(read.updates) if self._guard is not None else read.updates
            now = self._clock()
            for update in updates:
                update.traceparent = recent.of_update(update.replica, update.counter)
                self._in_flight.append(_Sent(update.counter, update.ByteSize(), now))
                self._bytes += update.ByteSize()
            self._cursor = read.through or newest
            if updates:
                yield updates

    def _is_full(self) -> bool:
        settings = self._settings
        return len(self._in_flight) >= settings.in_flight_updates or self._bytes >= settings.in_flight_bytes

    async def _read(self) -> Read:
        cursor, settings = self._cursor, self._settings

        def read(reader: ReplicaReader) -> Read:
            updates: list[rpb.OwnerUpdate] = []
            size = skipped = through = 0
            rows = reader.journal(cursor, settings.batch_updates)
            for row in rows:
                update = reader.update_of(row)
                if updates and size + update.ByteSize() > settings.batch_bytes:
                    break
                through = row.sequence
                if update.ByteSize() > settings.update_bytes:
                    skipped += 1
                    continue
                updates.append(update)
                size += update.ByteSize()
            return Read(updates, through, skipped)

        return await self._store.call(read)

    async def tend_forever(self) -> None:
        """Keep the journal within its bounds, with or without a consensus node."""
        while True:
            try:
                await self.tend()
            except NdmlError as error:
                log.warning("journal_not_tended", reason=error.reason, error=error.message)
            await self._sleep(self._settings.tend_s)

    async def _count_conflicts(self) -> None:
        position = self._store.last_sequence
        if position != self._counted_at:
            metrics.SIBLINGS.set(await self._store.call(lambda reader: reader.conflicts()))
            self._counted_at = position

    async def tend(self) -> None:
        """Prune what is durable and what is too much; count what is not published, and what is contradicted. Raises StoreUnavailable."""
        settings, durable = self._settings, self.durable

        def look(reader: ReplicaReader) -> tuple[int, int, int, int]:
            return (
                reader.journal_size(durable),
                reader.journal_size(0),
                reader.journal_keep(settings.journal_kept),
                reader.journal_keep(settings.journal_rows),
            )

        await self._count_conflicts()
        self.unpublished, size, old, overflow = await self._store.call(look)
        metrics.REPLICATION_UNPUBLISHED.set(self.unpublished)
        done = size - self.unpublished
        if done >= settings.journal_kept + settings.prune_every or overflow:
            up_to = max(min(durable, old), overflow)
            if overflow > durable:
                log.warning("journal_overflow", kept=settings.journal_rows, reason="replication.stream.journal_rows")
            if up_to:
                await self._store.prune(up_to)
                if self._guard is not None:
                    await self._guard.forget(up_to)
