"""What others wrote and a consensus node brings: offers are answered from the heads, updates are joined, gaps are left to the sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ndml.errors import InvalidArgument, NdmlError
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime.log import get_logger
from services.memory_node.records import Owner
from services.memory_node.replication.joining import Joins
from services.memory_node.replication.ports import Admitted, LocalStore, ReplicaReader, Shares, UpdateGuard
from services.memory_node.replication.reconcile import brief
from services.memory_node.replication.sweep import Sweeper

log = get_logger(__name__)

MOST_JOINED = 1024
"""Records of one join: some group commits; the store takes 4,096."""


class Subscriber:
    """Takes one message at a time: while it joins, the stream is not read, and flow control slows its sender."""

    def __init__(self, store: LocalStore, shares: Shares, joins: Joins, sweeper: Sweeper, guard: UpdateGuard | None) -> None:
        self._store = store
        self._shares = shares
        self._joins = joins
        self._sweeper = sweeper
        self._guard = guard

    async def take(self, message: cpb.ExchangeDeltasResponse) -> list[cpb.DeltaAnswer]:
        """Answers to offers and updates; what is missing among them was not taken and may be sent again. Raises StoreUnavailable."""
        if message.proofs and self._guard is not None:
            await self._guard.learn(message.proofs)
        if message.lost:
            log.warning("updates_lost", authors=len(message.lost))
            self._sweeper.request("updates_lost")
        answers = await self._answer(message.offers)
        if message.updates:
            answers += await self._join_all(message.updates)
        return answers

    async def _answer(self, offers: Sequence[cpb.DeltaOffer]) -> list[cpb.DeltaAnswer]:
        if not offers:
            return []
        owners = {Owner(offer.tenant, offer.user) for offer in offers}

        def read(reader: ReplicaReader) -> dict[Owner, dict[int, int]]:
            return {owner: reader.heads(owner) for owner in owners}

        heads = await self._store.call(read)
        return [self._answer_one(offer, heads[Owner(offer.tenant, offer.user)]) for offer in offers]

    def _answer_one(self, offer: cpb.DeltaOffer, heads: dict[int, int]) -> cpb.DeltaAnswer:
        wanted = offer.replica != self._store.replica and heads.get(offer.replica, 0) < offer.counter
        if wanted and self._shares.node_id not in self._shares.copies(offer.tenant, offer.user):
            # By this node's placement somebody else's. Where it is behind, the sweep after the change finds the owner.
            wanted = False
            self._sweeper.request("offered_what_is_not_ours")
        return cpb.DeltaAnswer(replica=offer.replica, counter=offer.counter, wanted=wanted)

    async def _join_all(self, updates: Sequence[rpb.OwnerUpdate]) -> list[cpb.DeltaAnswer]:
        admitted = await self._guard.admit(updates) if self._guard is not None else [Admitted(update, True, True) for update in updates]
        by_owner: dict[Owner, list[Admitted]] = defaultdict(list)
        settled: list[rpb.OwnerUpdate] = []
        for each in admitted:
            if each.join:
                by_owner[Owner(each.update.tenant, each.update.user)].append(each)
            elif each.settled:
                settled.append(each.update)
        for owner, some in by_owner.items():
            for part in _parts([each.update for each in some]):
                settled += await self._join(owner, part)
        return [cpb.DeltaAnswer(replica=update.replica, counter=update.counter, wanted=False) for update in settled]

    async def _join(self, owner: Owner, updates: list[rpb.OwnerUpdate]) -> list[rpb.OwnerUpdate]:
        """Those that need not come again: on disk, or never to be taken."""
        try:
            result = await self._joins.updates(owner, updates)
        except InvalidArgument as error:
            if len(updates) > 1:
                return [done for update in updates for done in await self._join(owner, [update])]
            log.warning("update_refused", author=updates[0].node_id, replica=updates[0].replica, **brief(error))
            return updates
        except NdmlError as error:
            log.info("updates_not_joined", count=len(updates), **brief(error))
            self._sweeper.mark(owner, [update.traceparent for update in updates])
            return []
        if _has_gap(result, updates):
            self._sweeper.mark(owner, [update.traceparent for update in updates])
        return updates


def _parts(updates: Iterable[rpb.OwnerUpdate]) -> Iterator[list[rpb.OwnerUpdate]]:
    """In order, in parts of up to MOST_JOINED records; an update is not split."""
    part: list[rpb.OwnerUpdate] = []
    records = 0
    for update in updates:
        if part and records + len(update.records) > MOST_JOINED:
            yield part
            part, records = [], 0
        part.append(update)
        records += len(update.records)
    if part:
        yield part


def _has_gap(result: pb.MergeResult, updates: Iterable[rpb.OwnerUpdate]) -> bool:
    """Whether something of an author is missing before one of these."""
    heads = {head.replica: head.counter for head in result.heads}
    return any(heads.get(update.replica, 0) < update.counter for update in updates)
