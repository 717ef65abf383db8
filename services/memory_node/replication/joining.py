"""Joins that wait while the engine is busy, counted and traced by where they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel_context

from ndml.errors import InvalidArgument, NdmlError, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics, semconv
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import links, set_error, tracer, tracing
from services.memory_node.records import Owner
from services.memory_node.replication.ports import LocalStore, Sleep, UpdateGuard

log = get_logger(__name__)


@contextmanager
def linked_span(name: str, traceparents: Iterable[str], count: int) -> Iterator[None]:
    """A trace of its own, linked to the requests that it serves: they ended long ago, so it is no part of theirs."""
    sampled = [value for value in traceparents if value]
    if not tracing() or (not sampled and name == semconv.SPAN_JOIN):
        yield
        return
    with tracer().start_as_current_span(name, context=otel_context.Context(), links=links(sampled)) as span:
        span.set_attribute(semconv.BATCH_SIZE, count)
        try:
            yield
        except NdmlError as error:
            set_error(span, error)
            raise


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
        with linked_span(semconv.SPAN_JOIN, (update.traceparent for update in updates), len(updates)):
            return await self._patiently(owner, pb.MergeAction(updates=updates), "stream")

    async def records(self, owner: Owner, records: Sequence[rpb.TraceRecord], source: str, heads: Iterable[rpb.Head] = ()) -> int:
        """Join records; with them everything of the authors in `heads` is here up to there. Returns how many records said something new.

        Raises what LocalStore.join raises. `source`: for the metric.
        """
        others = [head for head in heads if head.replica != self._store.replica]
        if not records and not others:
            return 0
        return (await self._patiently(owner, pb.MergeAction(records=records, heads=others), source)).changed

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
        # Without a position: who the author is, and nothing more.
        authors = {update.replica: update.node_id for update in updates}
        named = [rpb.OwnerUpdate(tenant=owner.tenant, user=owner.user, replica=one, node_id=name) for one, name in authors.items()]
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
