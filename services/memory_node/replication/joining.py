"""Joins that wait while the engine is busy, counted and traced by where they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from ndml.errors import InvalidArgument, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics, semconv
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import linked_span, owner_hash, tenant_hash, tracing
from services.memory_node.positions import noted, notes_in
from services.memory_node.records import Owner
from services.memory_node.replication.ports import LocalStore, Sleep, UpdateGuard

log = get_logger(__name__)

_NOTHING_SHOWN: Mapping[int, int] = {}


class Joins:
    """The way of everything that comes from other nodes into the store.

    attempts: tries while the queue is full; then Overloaded is the caller's to deal with.
    """

    def __init__(self, store: LocalStore, attempts: int, sleep: Sleep) -> None:
        self._store = store
        self._attempts = attempts
        self._sleep = sleep

    async def updates(self, owner: Owner, updates: Sequence[rpb.OwnerUpdate]) -> pb.MergeResult:
        """Raises what LocalStore.join raises."""
        with _span_of(owner, updates):
            return await self._patiently(owner, pb.MergeAction(updates=updates), "stream")

    async def records(
        self,
        owner: Owner,
        records: Sequence[rpb.TraceRecord],
        source: str,
        heads: Iterable[rpb.Head] = (),
        shown: Mapping[int, int] = _NOTHING_SHOWN,
    ) -> int:
        """Join records; with them everything of the authors in `heads` is here up to there. Returns how many records said something new.

        Raises what LocalStore.join raises. `source`: for the metric. `shown`: nothing of an author in the records is past this.
        """
        others = [head for head in heads if head.replica != self._store.replica]
        if not records and not others:
            return 0
        notes = noted(owner, shown) if records else ()
        return (await self._patiently(owner, pb.MergeAction(updates=notes, records=records, heads=others), source)).changed

    async def repaired(
        self, owner: Owner, updates: Sequence[rpb.OwnerUpdate], source: str, guard: UpdateGuard, heads: Iterable[rpb.Head] = ()
    ) -> int:
        """As `records`, of signed updates that were inspected, whole or in part: what they say is joined, their positions are not.

        One that cannot be joined, though it is signed, is left out: its author must not hold the others up.
        """
        try:
            changed = await self._repaired(owner, updates, source, heads)
        except InvalidArgument as error:
            if len(updates) > 1:
                return sum([await self.repaired(owner, [update], source, guard) for update in updates])
            log.warning("update_refused", author=[update.node_id for update in updates], reason=error.reason, error=error.message)
            return 0
        await guard.keep([update for update in updates if update.records])
        return changed

    async def _repaired(self, owner: Owner, updates: Sequence[rpb.OwnerUpdate], source: str, heads: Iterable[rpb.Head]) -> int:
        records = [record for update in updates for record in update.records]
        others = [head for head in heads if head.replica != self._store.replica]
        if not records and not others:
            return 0
        # Who the author is, and how far what shows of it now may go; no head grows by that.
        authors, named = {update.replica: update.node_id for update in updates}, noted(owner, notes_in(updates))
        for update in named:
            update.node_id = authors[update.replica]
        return (await self._patiently(owner, pb.MergeAction(updates=named, records=records, heads=others), source)).changed

    async def _patiently(self, owner: Owner, action: pb.MergeAction, source: str) -> pb.MergeResult:
        for attempt in range(1, self._attempts + 1):
            try:
                result = await self._store.join(owner, action)
                break
            except Overloaded as error:
                if attempt == self._attempts:
                    raise
                await self._sleep((error.retry_after_s or Overloaded.default_retry_s) * attempt)
        metrics.RECORDS_JOINED.labels(source).inc(result.changed)
        return result


def _span_of(owner: Owner, updates: Sequence[rpb.OwnerUpdate]) -> AbstractContextManager[object]:
    """Of a join that sampled requests are behind; none of any other."""
    traceparents = [update.traceparent for update in updates if update.traceparent] if tracing() else []
    if not traceparents:
        return nullcontext()
    attributes: dict[str, str | int] = {
        semconv.OWNER_HASH: owner_hash(*owner),
        semconv.TENANT_HASH: tenant_hash(owner.tenant),
        semconv.AUTHOR_ID: ",".join(sorted({update.node_id for update in updates})),
        semconv.BATCH_SIZE: len(updates),
        semconv.MEMORY_COUNT: sum(len(update.records) for update in updates),
        semconv.BYTES: sum(update.ByteSize() for update in updates),
        semconv.REASON: "stream",
    }
    return linked_span(semconv.SPAN_JOIN, traceparents, attributes)
