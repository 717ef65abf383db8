"""Reads: from one copy, which is the next one when it does not answer; or from enough copies, whose differences are mended first.

A quorum read never joins anything itself: copies that differ about a trace get each other's records and join them as they join everything,
then all are asked again. So what one of them knows to be erased is gone, the newest content stands, and the next quorum read agrees.

A read also says what it has seen, so that a later one sees no less: what the copy that answered knew. Of copies that were of one mind it
is what each of them knew, the least that covers the answer. Where they differed, each may have shown what only it had: then it is what they
know together, which any single copy may lack for a moment. That is why a quorum read asks for what its caller has seen of the copies
together, and not of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from ndml.errors import FieldInvalid, OwnerUnavailable, TraceNotFound, Unavailable
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.internal.v1 import replication_pb2
from ndml.placement import PlacementNode
from ndml.runtime import metrics
from ndml.runtime.channel import LatencyWindow, hedged
from ndml.v1 import types_pb2
from services.gateway.liveness import Liveness
from services.gateway.ports import NOTHING_SEEN, Copies, Done, Lanes, Seen, Sent
from services.gateway.profiles import name_of
from services.gateway.quorum import copies_of, is_erased
from services.gateway.rounds import in_rounds
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings, QuorumSettings
from services.gateway.tokens import joined, tell_seen
from services.gateway.union import UNIONS, Union

T = TypeVar("T")
_Record = replication_pb2.TraceRecord
_Shape = tuple[int, bytes, frozenset[tuple[int, int]], frozenset[tuple[int, int]]]
_AGREED = frozenset({"get", *UNIONS})
"""Reads that copies can agree on, and that say what they have seen."""
_BATCH = 256
"""Records in one merge at most: with their vectors far below the largest message."""


class _Held(NamedTuple):
    """A copy's record of a trace, and past what of each author there is nothing in it; where updates are signed, what it is made of, which
    other copies take instead."""

    record: _Record
    updates: Sequence[replication_pb2.OwnerUpdate]
    shown: Seen


class _Answer(NamedTuple):
    node: PlacementNode
    sent: Sent


class Reads:
    """Reads of owners that have more than one copy, or one."""

    def __init__(self, lanes: Lanes, copies: Copies, liveness: Liveness, settings: QuorumSettings, links: LinkSettings) -> None:
        self._lanes = lanes
        self._copies = copies
        self._liveness = liveness
        self._settings = settings
        self._links = links
        self._window = LatencyWindow()

    async def read(
        self, owner: Owner, operation: node_pb2.Operation, deadline: float | None, seen: Seen, consistency: types_pb2.Consistency
    ) -> Done:
        """The answer of as many owners as `consistency` says, one where it says nothing, and what it has seen with `seen`; of one copy
        nothing, for there is no other one. Raises NdmlError; TraceNotFound has a token of that in its metadata.

        A stale placement is refreshed once; when all are away, or behind what the caller has seen, they are asked again a little later.
        """

        async def once(_rounds: int) -> Done:
            return await self._once(owner, operation, deadline, seen, consistency)

        try:
            return await in_rounds(once, self._copies, self._links, lambda: True)
        except TraceNotFound as error:
            if operation.want_heads:
                tell_seen(error, owner, seen)
            raise

    async def _once(
        self, owner: Owner, operation: node_pb2.Operation, deadline: float | None, seen: Seen, consistency: types_pb2.Consistency
    ) -> Done:
        copies = self._copies.owners(*owner)
        if len(copies) == 1:
            # Nothing to agree on, and no other copy to be sent to: most searches, on their shortest way.
            operation.want_heads = False
            _ask_for(operation, seen)
            return Done((await self._lanes.send(copies[0], operation, deadline, write=False)).result)
        owners = self._liveness.ordered(copies, name_of(operation.search.node_profile))
        action = operation.WhichOneof("action") or ""
        operation.want_heads = action in _AGREED
        wanted = copies_of(consistency, len(owners), 1)
        _ask_for(operation, seen if wanted == 1 or action not in _AGREED else NOTHING_SEEN)
        if wanted == 1 or action not in _AGREED:
            # Of another one too, first answer wins, when one is slow, away, or behind what the caller has seen.
            answer = await hedged([partial(self._ask, node, operation, deadline) for node in owners], self._window)
            return Done(answer.sent.result, joined(seen, _shown(answer.sent.result)))
        agreed = self._get if action == "get" else self._union
        result, known = await agreed(owners, operation, deadline, wanted, seen)
        return Done(result, joined(seen, known))

    async def _union(
        self, owners: Sequence[PlacementNode], operation: node_pb2.Operation, deadline: float | None, wanted: int, seen: Seen
    ) -> Done:
        union = UNIONS[operation.WhichOneof("action") or ""](operation)
        answers = await self._asked(owners, operation, deadline, wanted, seen)
        differed = False
        for _ in range(self._settings.repair_rounds):
            nodes = [answer.node for answer in answers]
            disputed = union.disputed([answer.sent.result for answer in answers])
            differed = differed or bool(disputed)
            if not await self._settled(nodes, operation, disputed, deadline, union):
                shown = [_shown(answer.sent.result) for answer in answers]
                return Done(union.joined([answer.sent.result for answer in answers]), joined(*shown) if differed else _common(shown))
            answers = await self._asked(nodes, operation, deadline, len(nodes))
        raise OwnerUnavailable("the copies differed in more than one call mends (quorum.repair_rounds): repeat it, it goes on from here")

    async def _get(
        self, owners: Sequence[PlacementNode], operation: node_pb2.Operation, deadline: float | None, wanted: int, seen: Seen
    ) -> Done:
        trace_id, owner = operation.get.trace_id, Owner(operation.tenant, operation.user)
        answers = await self._asked(owners, _about(operation, trace_id), deadline, wanted, seen)
        mended = await self._mend(operation, [(answer.node, _records([(trace_id, answer.sent)])) for answer in answers], deadline)
        shown = joined(*(_shown(answer.sent.result) for answer in answers)) if mended else NOTHING_SEEN
        # Each of them has what all of them had: one answers, unless it has lost its disk since.
        attempts = [partial(self._ask, answer.node, _still_knowing(operation, answer), deadline) for answer in answers]
        try:
            last = await hedged(attempts, self._window)
        except TraceNotFound as error:
            tell_seen(error, owner, shown)
            raise
        return Done(last.sent.result, joined(shown, _shown(last.sent.result)))

    async def _settled(
        self, nodes: Sequence[PlacementNode], operation: node_pb2.Operation, trace_ids: Sequence[str], deadline: float | None, union: Union
    ) -> bool:
        """Mend what the nodes differ about among these traces; False when there was nothing: the answers differ for another reason."""
        mended = False
        for start in range(0, len(trace_ids), self._settings.repair_traces):
            some = trace_ids[start : start + self._settings.repair_traces]
            found = await asyncio.gather(*(self._records_at(node, operation, some, deadline) for node in nodes))
            union.erased |= {trace_id for records in found for trace_id, held in records.items() if is_erased(held.record)}
            mended = await self._mend(operation, list(zip(nodes, found, strict=True)), deadline) or mended
        return mended

    async def _records_at(
        self, node: PlacementNode, operation: node_pb2.Operation, trace_ids: Sequence[str], deadline: float | None
    ) -> dict[str, _Held]:
        asked = [self._ask(node, _about(operation, trace_id), deadline) for trace_id in trace_ids]
        return _records(zip(trace_ids, [answer.sent for answer in await asyncio.gather(*asked)], strict=True))

    async def _mend(
        self, operation: node_pb2.Operation, held: Sequence[tuple[PlacementNode, dict[str, _Held]]], deadline: float | None
    ) -> bool:
        """Give every node the records of the others that say something else than its own; on disk when this returns."""
        merges = []
        for node, own in held:
            foreign = [each for other, records in held if other is not node for each in records.values()]
            lacking = _distinct(each for each in foreign if _shape(each.record) != _shape_of(own.get(each.record.trace_id.hex())))
            for start in range(0, len(lacking), _BATCH):
                some = lacking[start : start + _BATCH]
                merge = node_pb2.MergeAction(records=[each.record for each in some if not each.updates])
                merge.updates.extend(update for each in some for update in each.updates)
                merge.updates.extend(_noted(operation, joined(*(each.shown for each in some if not each.updates))))
                carried = node_pb2.Operation(tenant=operation.tenant, user=operation.user, traceparent=operation.traceparent, merge=merge)
                merges.append(self._lanes.send(node, carried, deadline, write=True))
                metrics.READ_REPAIRS.inc(len(some))
        try:
            await asyncio.gather(*merges)
        except FieldInvalid as error:
            # Another copy's record, not anything of the caller's: it was written under a clock that is minutes off, say.
            raise OwnerUnavailable(f"a copy refuses what another one has of this ({error.message}): repeat the call later") from error
        return bool(merges)

    async def _asked(
        self, nodes: Sequence[PlacementNode], operation: node_pb2.Operation, deadline: float | None, wanted: int, seen: Seen = NOTHING_SEEN
    ) -> list[_Answer]:
        """Answers of `wanted` of the nodes, of more where those do not know all of `seen` together."""
        attempts = [partial(self._ask, node, operation, deadline) for node in nodes]
        for count in range(wanted, len(nodes) + 1):
            answers = await enough(attempts, count, self._settings.try_s)
            known = joined(*map(_known, answers))
            if all(known.get(replica, 0) >= counter for replica, counter in seen.items()):
                return answers
        raise OwnerUnavailable("all copies together are behind what the caller has seen: repeat the call shortly")

    async def _ask(self, node: PlacementNode, operation: node_pb2.Operation, deadline: float | None) -> _Answer:
        twin = node_pb2.Operation()
        twin.CopyFrom(operation)  # a lane stamps the deadline into it: two lanes must not share one
        sent = await self._lanes.send(node, twin, deadline, write=False)
        self._liveness.answered(node.node_id)
        return _Answer(node, sent)


async def enough(attempts: Sequence[Callable[[], Awaitable[T]]], wanted: int, patience_s: float) -> list[T]:
    """The first `wanted` answers. So many are asked at once, one more whenever one is away or none came for `patience_s`.

    Raises at once any error that another copy would give too, OwnerUnavailable when too few are left.
    """
    waiting, pending = list(attempts), set[asyncio.Task[T]]()
    answers: list[T] = []
    try:
        while len(answers) < wanted:
            while waiting and len(answers) + len(pending) < wanted:
                pending.add(asyncio.ensure_future(waiting.pop(0)()))
            if len(answers) + len(pending) < wanted:
                text = f"fewer than {wanted} of {len(attempts)} copies answer: repeat the call, or ask for less consistency"
                raise OwnerUnavailable(text, metadata={"acked": str(len(answers)), "wanted": str(wanted)})
            done, pending = await asyncio.wait(pending, timeout=patience_s if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            if not done and waiting:
                pending.add(asyncio.ensure_future(waiting.pop(0)()))
            answers += _well(done)
        return answers[:wanted]
    finally:
        for task in pending:
            task.cancel()


def _well(done: Iterable[asyncio.Task[T]]) -> list[T]:
    answers = []
    for task in done:
        error = task.exception()
        if error is None:
            answers.append(task.result())
        elif not isinstance(error, Unavailable):
            raise error
    return answers


def _ask_for(operation: node_pb2.Operation, seen: Seen) -> None:
    """Name what the copy that answers must know."""
    del operation.seen[:]
    if seen:
        operation.seen.extend(replication_pb2.Head(replica=replica, counter=counter) for replica, counter in seen.items())


def _still_knowing(operation: node_pb2.Operation, answer: _Answer) -> node_pb2.Operation:
    """The operation for the copy that gave the answer: to be refused by a store that has less than that one had."""
    twin = node_pb2.Operation()
    twin.CopyFrom(operation)
    _ask_for(twin, _known(answer))
    return twin


def _known(answer: _Answer) -> Seen:
    """Up to where the copy had everything of each author when it read."""
    heads: dict[int, int] = {}
    for head in answer.sent.result.heads:
        heads[head.replica] = min(head.counter, heads.get(head.replica, head.counter))
    return heads


def _shown(result: node_pb2.OperationResult) -> Seen:
    """Up to where something of each author may show in the answer: past what is known where updates came before earlier ones."""
    return joined(*({head.replica: head.counter} for head in result.heads))


def _common(shown: Sequence[Seen]) -> Seen:
    """What shows in equal answers: no more of any author than in each of them."""
    least = {replica: min(each.get(replica, 0) for each in shown) for replica in shown[0]}
    return {replica: counter for replica, counter in least.items() if counter}


def _about(operation: node_pb2.Operation, trace_id: str) -> node_pb2.Operation:
    return node_pb2.Operation(
        tenant=operation.tenant,
        user=operation.user,
        traceparent=operation.traceparent,
        want_heads=True,
        record=node_pb2.RecordAction(trace_id=trace_id),
    )


def _records(answers: Iterable[tuple[str, Sent]]) -> dict[str, _Held]:
    """What is known of each trace; left out where nothing is."""
    found = ((trace_id, sent.result) for trace_id, sent in answers)
    there = [(trace_id, result) for trace_id, result in found if result.record.HasField("record")]
    return {trace_id: _Held(result.record.record, result.more_updates, _shown(result)) for trace_id, result in there}


def _noted(operation: node_pb2.Operation, shown: Seen) -> list[replication_pb2.OwnerUpdate]:
    """What goes along with records, as services/memory_node/positions.py has it: updates from a position to the same one."""
    tenant, user = operation.tenant, operation.user
    found = sorted(shown.items())
    return [replication_pb2.OwnerUpdate(tenant=tenant, user=user, replica=replica, previous=at, counter=at) for replica, at in found if at]


def _shape_of(held: _Held | None) -> _Shape | None:
    return None if held is None else _shape(held.record)


def _shape(record: _Record) -> _Shape:
    """Equal for records that say the same: what their digest is made of."""
    dots = frozenset((version.dot.replica, version.dot.counter) for version in record.versions)
    return record.length, record.context, dots, frozenset((state.replica, state.counter) for state in record.states)


def _distinct(several: Iterable[_Held]) -> list[_Held]:
    return list({(each.record.trace_id, _shape(each.record)): each for each in several}.values())
