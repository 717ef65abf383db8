"""Writes on several copies: one judges and commits, the gateway carries what changed to the others, the caller hears when enough have it.

Every write may be repeated at any copy, whether it was carried out before or not: adds go by their trace id, changes by the time that the
gateway gave them, feedback by a digest. So a copy that does not answer is left for the next one, and a caller may repeat what failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass

from ndml.errors import DeadlinePassed, NdmlError, Overloaded, OwnerUnavailable, StaleEpoch, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.internal.v1 import replication_pb2
from ndml.placement import PlacementNode
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from ndml.v1 import types_pb2
from services.gateway.known import Known
from services.gateway.liveness import Liveness, ids
from services.gateway.ports import NOTHING_SEEN, Copies, Done, Lanes, Seen, Sent
from services.gateway.rounds import ELSEWHERE, in_rounds
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings, QuorumSettings
from services.gateway.tokens import joined

log = get_logger(__name__)

_PASSING = (*ELSEWHERE, StaleEpoch, Overloaded, DeadlinePassed)
"""What a merge meets and may not meet a moment later: restarts, an epoch that the copy does not know yet, full queues."""
_LONGEST_PAUSE_S = 1.0
_DIGEST_BYTES = 16
_MARGIN_S = 0.05
"""Left of the caller's deadline to say what stands instead of being cut off."""


@dataclass(frozen=True, slots=True)
class _First:
    """The copy that carried the write out, and all copies. `lost`: another one may have done so too, its answer did not come."""

    node: PlacementNode
    sent: Sent
    lost: bool
    copies: Sequence[PlacementNode]


class Quorum:
    """Carries out writes. `clock` counts the seconds that deadlines are in; `random_bytes` is a source such as os.urandom."""

    def __init__(
        self,
        lanes: Lanes,
        copies: Copies,
        liveness: Liveness,
        settings: QuorumSettings,
        links: LinkSettings,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._lanes = lanes
        self._copies = copies
        self._liveness = liveness
        self._settings = settings
        self._links = links
        self._clock = clock
        self._random_bytes = random_bytes
        self._merges = Merges(lanes, liveness, settings, links, clock)
        self._known = Known()

    async def stop(self) -> None:
        """What is on its way to other copies gets a moment; what is left is theirs to fetch."""
        await self._merges.stop()

    async def write(
        self,
        owner: Owner,
        operation: node_pb2.Operation,
        deadline: float | None,
        consistency: types_pb2.Consistency,
        seen: Seen = NOTHING_SEEN,
    ) -> Done:
        """The result at the first copy, once as many copies as asked for have the write on disk. Raises NdmlError.

        seen: what the first copy must know. It also should know what was written through here before; that is given up rather than the
        write. Where the write stands and fewer copies have it: OwnerUnavailable with metadata "acked" and "wanted".
        """

        async def once(rounds: int) -> _First:
            known = self._known.of(owner) if rounds + 1 < self._links.attempts else NOTHING_SEEN
            _require(operation, seen, known)
            return await self._round(owner, operation, deadline, lost=rounds > 0)

        first = await in_rounds(once, self._copies, self._links, lambda: _repeatable(operation))
        done = await self._spread(owner, operation, first, deadline, consistency)
        self._known.note(owner, done.seen)
        return done

    async def _spread(
        self, owner: Owner, operation: node_pb2.Operation, first: _First, deadline: float | None, consistency: types_pb2.Consistency
    ) -> Done:
        """Carry what changed to the other copies."""
        if len(first.copies) == 1:
            return Done(first.sent.result, _position(first.sent))
        owners = ids(self._copies.owners(*owner))
        merge, seen = await self._changes(owner, operation, first, deadline)
        if merge is None:
            return Done(first.sent.result, seen)
        wanted = copies_of(consistency, len(owners), self._settings.write)
        carried = node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=operation.traceparent, merge=merge)
        tally = Tally(wanted, first.node.node_id in owners)
        for node in first.copies:
            if node.node_id != first.node.node_id:
                self._merges.start(node, carried, tally if node.node_id in owners else None)
        await self._enough(tally, first.node, deadline)
        return Done(first.sent.result, seen)

    async def _round(self, owner: Owner, operation: node_pb2.Operation, deadline: float | None, *, lost: bool) -> _First:
        """One owner after the other, until one has it."""
        copies = self._copies.copies(*owner)
        if len(copies) == 1:
            operation.want_update = False
            return _First(copies[0], await self._lanes.send(copies[0], operation, deadline, write=True), lost, copies)
        owners = self._copies.owners(*owner)
        self._prepare(operation)
        failed: NdmlError | None = None
        absent: list[_First | TraceNotFound] = []
        for node in self._liveness.ordered(owners):
            try:
                sent = await self._try(node, operation, deadline, patient=len(owners) == 1)
            except ELSEWHERE as error:
                if not isinstance(error, OwnerUnavailable):  # who does not answer, the lane says; this one may be well, and behind
                    self._liveness.failed(node.node_id)
                failed = error
                continue
            except TraceNotFound as error:
                absent.append(error)
                continue
            self._liveness.answered(node.node_id)
            first = _First(node, sent, lost or failed is not None, copies)
            if not _knows_nothing_of(operation, sent.result):
                return first
            absent.append(first)
        # What was acknowledged is on W copies: so many have to say that they do not know it.
        if len(absent) > len(owners) - copies_of(types_pb2.CONSISTENCY_UNSPECIFIED, len(owners), self._settings.write):
            if isinstance(absent[0], TraceNotFound):
                raise absent[0]
            return absent[0]
        raise failed or OwnerUnavailable("nobody owns this scope: come back shortly")

    def _prepare(self, operation: node_pb2.Operation) -> None:
        operation.want_update = True
        # With one copy feedback of an unknown request is not kept in the node's table of requests, and is not repeated.
        if operation.HasField("reinforce") and not operation.reinforce.request_digest:
            operation.reinforce.request_digest = self._random_bytes(_DIGEST_BYTES)

    async def _try(self, node: PlacementNode, operation: node_pb2.Operation, deadline: float | None, *, patient: bool) -> Sent:
        if patient:
            return await self._lanes.send(node, operation, deadline, write=True)
        try:
            async with asyncio.timeout(self._settings.try_s):
                return await self._lanes.send(node, operation, deadline, write=True)
        except TimeoutError:
            self._liveness.failed(node.node_id)
            text = f"{node.node_id} has not answered for {self._settings.try_s} s (quorum.try_s): repeat the call with the same request_id"
            raise OwnerUnavailable(text) from None

    async def _changes(
        self, owner: Owner, operation: node_pb2.Operation, first: _First, deadline: float | None
    ) -> tuple[node_pb2.MergeAction | None, Seen]:
        """What the other copies have to join, and what a read must have seen then.

        Of what was there already the copy gives its records too: a lost answer may be why it is, and the others may lack it.
        """
        result, seen = first.sent.result, _position(first.sent)
        merge = node_pb2.MergeAction()
        if result.HasField("update"):
            merge.updates.extend([result.update, *result.more_updates])
        elif result.reinforce.replayed:
            merge.records.extend(await self._records(owner, operation, first.node, deadline))
        else:
            return None, seen
        records = merge.records or result.update.records
        if operation.HasField("delete") and first.lost:
            # Erased by this very call, at the copy whose answer was lost.
            result.delete.deleted = result.delete.deleted or any(is_erased(record) for record in records)
        if not result.update.counter or any(outcome.existed for outcome in result.put.outcomes):
            seen = {**await self._heads(owner, first, records, deadline), **seen}
        return merge, seen

    async def _records(
        self, owner: Owner, operation: node_pb2.Operation, node: PlacementNode, deadline: float | None
    ) -> list[replication_pb2.TraceRecord]:
        """Of graded traces, as far as the node knows them."""
        trace_ids = dict.fromkeys(row.trace_id for row in operation.reinforce.feedback)
        asked = [_operation(owner, record=node_pb2.RecordAction(trace_id=trace_id)) for trace_id in trace_ids]
        answers = await asyncio.gather(*(self._lanes.send(node, each, deadline, write=False) for each in asked))
        found = [answer.result.record for answer in answers]
        return [answer.record for answer in found if answer.HasField("record")]

    async def _heads(
        self, owner: Owner, first: _First, records: Iterable[replication_pb2.TraceRecord], deadline: float | None
    ) -> dict[int, int]:
        """Up to where the copy knows the other authors of these records: whoever knows as much has the records too."""
        authors = {version.dot.replica for record in records for version in record.versions}
        authors |= {state.replica for record in records for state in record.states}
        authors.discard(first.sent.replica)
        if not authors:
            return {}
        # Updates without records and positions: nothing is joined, their authors' heads are in the answer.
        empty = [replication_pb2.OwnerUpdate(tenant=owner.tenant, user=owner.user, replica=author) for author in sorted(authors)]
        answer = await self._lanes.send(first.node, _operation(owner, merge=node_pb2.MergeAction(updates=empty)), deadline, write=True)
        return {head.replica: head.counter for head in answer.result.merge.heads}

    async def _enough(self, tally: Tally, first: PlacementNode, deadline: float | None) -> None:
        if not tally.is_decided:
            await asyncio.wait([tally.decided], timeout=self._patience(deadline))
        if tally.acked < tally.wanted:
            metrics.REPLICA_WRITES.labels("short").inc()
            raise OwnerUnavailable(
                f"the write stands at {first.node_id}, on {tally.acked} of {tally.wanted} copies: repeat it with the same request_id, "
                "it is not done twice",
                metadata={"acked": str(tally.acked), "wanted": str(tally.wanted)},
            )

    def _patience(self, deadline: float | None) -> float:
        longest = self._settings.merge_s
        return longest if deadline is None else max(0.0, min(longest, deadline - self._clock() - _MARGIN_S))


class Tally:
    """Counts the owners that have a write, until enough have it or nobody is left who may."""

    def __init__(self, wanted: int, first: bool) -> None:
        self.wanted = wanted
        self.acked = int(first)
        self.waiting = 0
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_decided(self) -> bool:
        return self.acked >= self.wanted or self.waiting == 0

    def note(self, *, acked: bool) -> None:
        self.waiting -= 1
        self.acked += acked
        if self.is_decided and not self.decided.done():
            self.decided.set_result(None)


@dataclass(slots=True)
class _Load:
    count: int = 0
    size: int = 0


class Merges:
    """What is on its way to other copies: bounded for each of them, so that one that is slow costs no memory and holds nobody."""

    def __init__(self, lanes: Lanes, liveness: Liveness, settings: QuorumSettings, links: LinkSettings, clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._liveness = liveness
        self._settings = settings
        self._links = links
        self._clock = clock
        self._loads: dict[str, _Load] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, node: PlacementNode, operation: node_pb2.Operation, tally: Tally | None) -> None:
        """Begin to carry it there; dropped at the bound: the copy gets it from the stream of deltas then, or by comparing."""
        size = operation.ByteSize()
        load = self._loads.setdefault(node.node_id, _Load())
        if load.count >= self._settings.merges or load.size + size > self._settings.merge_bytes:
            metrics.REPLICA_WRITES.labels("dropped").inc()
            return
        load.count += 1
        load.size += size
        if tally is not None:
            tally.waiting += 1
        task = asyncio.get_running_loop().create_task(self._carry(node, operation, tally), context=Context())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, load, size))

    async def stop(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.stop_s)
        for task in list(self._tasks):
            task.cancel()

    async def _carry(self, node: PlacementNode, operation: node_pb2.Operation, tally: Tally | None) -> None:
        acked = False
        try:
            acked = await self._tried(node, operation, tally)
        finally:
            metrics.REPLICA_WRITES.labels("acked" if acked else "failed").inc()
            if tally is not None:
                tally.note(acked=acked)

    async def _tried(self, node: PlacementNode, operation: node_pb2.Operation, tally: Tally | None) -> bool:
        """Once, and again only while the caller waits for it: what the copy misses it fetches itself."""
        until, pause_s = self._clock() + self._settings.merge_s, self._links.retry_backoff_s
        while True:
            try:
                await self._lanes.send(node, operation, until, write=True)
            except _PASSING as error:
                log.debug("merge_failed", node=node.node_id, reason=error.reason)
                if isinstance(error, OwnerUnavailable):
                    self._liveness.failed(node.node_id)
            except NdmlError as error:
                log.warning("merge_refused", node=node.node_id, reason=error.reason, message=error.message)
                return False
            else:
                self._liveness.answered(node.node_id)
                return True
            if not await self._worth_another(tally, pause_s, until):
                return False
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _worth_another(self, tally: Tally | None, pause_s: float, until: float) -> bool:
        """Pause, unless nobody waits already; whether somebody still does."""
        if tally is None or tally.is_decided:
            return False
        await asyncio.sleep(pause_s)
        return not tally.is_decided and self._clock() < until

    def _ended(self, task: asyncio.Task[None], load: _Load, size: int) -> None:
        self._tasks.discard(task)
        load.count -= 1
        load.size -= size
        if not task.cancelled() and task.exception() is not None:
            log.error("merge_fault", exc_info=task.exception())


def copies_of(consistency: types_pb2.Consistency, owners: int, default: int) -> int:
    """How many of so many owners take part in a call, at least one; half, rounded up, where neither word nor default (0) says it."""
    named = {types_pb2.CONSISTENCY_ONE: 1, types_pb2.CONSISTENCY_QUORUM: owners // 2 + 1, types_pb2.CONSISTENCY_ALL: owners}
    return max(1, min(owners, named.get(consistency, default or (owners + 1) // 2)))


def _operation(
    owner: Owner, *, record: node_pb2.RecordAction | None = None, merge: node_pb2.MergeAction | None = None
) -> node_pb2.Operation:
    return node_pb2.Operation(tenant=owner.tenant, user=owner.user, record=record, merge=merge)


def _repeatable(operation: node_pb2.Operation) -> bool:
    """Whether a second try can do no harm: feedback without a digest counts again."""
    return not operation.HasField("reinforce") or bool(operation.reinforce.request_digest)


def _position(sent: Sent) -> Seen:
    """The commit that a later read must see; none where nothing was written."""
    body = getattr(sent.result, sent.result.WhichOneof("result") or "error")
    sequence: int = getattr(body, "sequence", 0)
    return {sent.replica: sequence} if sequence else {}


def is_erased(record: replication_pb2.TraceRecord) -> bool:
    return record.length > 0 and record.length % 2 == 0


def _require(operation: node_pb2.Operation, seen: Seen, known: Seen) -> None:
    """Name what the copy must know. A new trace builds on nothing, so that `known` holds up no put."""
    del operation.seen[:]
    wanted = seen if operation.HasField("put") else joined(seen, known)
    operation.seen.extend(replication_pb2.Head(replica=replica, counter=counter) for replica, counter in wanted.items())


def _knows_nothing_of(operation: node_pb2.Operation, result: node_pb2.OperationResult) -> bool:
    """A delete of what this copy has never heard of, neither as present nor as erased."""
    return operation.HasField("delete") and not result.delete.deleted and not result.update.records
