"""Which owners this node holds, what their digests are, and whom it shares them with: what both sides of a comparison look at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field

from ndml.crdt.digests import BUCKETS, DIGEST_BYTES, Buckets, bucket_of
from ndml.errors import FieldInvalid
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import owner_key
from services.memory_node.records import Owner
from services.memory_node.replication.ports import LocalStore, ReplicaReader, Shares

MAX_FOREIGN = 100_000
"""Owners noted in one survey that are held and not ours: a share of what a node that left hands over; the next survey finds the others."""


def owner_of(state: rpb.OwnerState) -> Owner:
    return Owner(state.tenant, state.user)


@dataclass(slots=True)
class Survey:
    """This node's owners at one epoch.

    held     how many there were when all were looked at
    buckets  for each other node the owners shared with it, folded
    coming   for each other node how many of the owners it should have and does not serve yet
    foreign  owners that are here and belong to others
    """

    epoch: int
    position: int
    held: int = 0
    buckets: dict[str, Buckets] = field(default_factory=dict)
    coming: Counter[str] = field(default_factory=Counter)
    foreign: dict[Owner, None] = field(default_factory=dict)

    def shared_with(self, node_id: str) -> Buckets:
        """Empty where nothing is shared."""
        return self.buckets.setdefault(node_id, Buckets())


class Catalog:
    """Reads a page of owners at a time, so that searches get the processor in between."""

    def __init__(self, store: LocalStore, shares: Shares, page_owners: int) -> None:
        self._store = store
        self._shares = shares
        self._page = page_owners
        self._turn = asyncio.Lock()
        self._last: Survey | None = None

    async def survey(self) -> Survey:
        """All owners folded. While nothing is written and nothing moves it is made once for all who ask. Raises StoreUnavailable."""
        async with self._turn:
            epoch, position = self._shares.epoch, self._store.last_sequence
            if self._last is None or self._last.epoch != epoch:
                survey = Survey(epoch, position)
                async for held, states in self._pages(self._concerns_others):
                    survey.held += held
                    for state in states:
                        self._note(survey, state)
                self._last = survey
            elif self._last.position != position:
                await self._refresh(self._last, position)
            return self._last

    def forget(self) -> None:
        """Owners were let go: the next survey looks at everything."""
        self._last = None

    async def _refresh(self, survey: Survey, position: int) -> None:
        """Look at what has changed since."""
        changed = await self._store.call(lambda reader: reader.changed_owners(survey.position))
        for start in range(0, len(changed), self._page):
            some = [owner for owner in changed[start : start + self._page] if self._concerns_others(owner)]
            for state in await self._store.call(_states_of(some)):
                self._note(survey, state)
        survey.position = position

    async def states(self, shared_with: str, buckets: Collection[int]) -> AsyncIterator[Sequence[rpb.OwnerState]]:
        """The owners that `shared_with` should have ("": all), in these buckets (none: all), in pages.

        Raises StoreUnavailable, FieldInvalid for a bucket that does not exist.
        """
        if any(not 0 <= bucket < BUCKETS for bucket in buckets):
            raise FieldInvalid(f"buckets are numbered 0 to {BUCKETS - 1}", field="buckets")
        some = frozenset(buckets) or frozenset(range(BUCKETS))

        def wanted(owner: Owner) -> bool:
            return bucket_of(owner_key(*owner)) in some and (not shared_with or shared_with in self._shares.copies(*owner))

        async for _, states in self._pages(wanted):
            if states:
                yield states

    async def _pages(self, wanted: Callable[[Owner], bool]) -> AsyncIterator[tuple[int, Sequence[rpb.OwnerState]]]:
        """How many owners a page has, and the states of those that are wanted: a state may cost a look at all records."""
        after: Owner | None = None
        while True:
            start = after

            def read(reader: ReplicaReader, start: Owner | None = start) -> tuple[Sequence[Owner], list[rpb.OwnerState]]:
                with reader.snapshot():
                    owners = reader.owners(start, self._page)
                    return owners, [reader.owner_state(owner) for owner in owners if wanted(owner)]

            owners, states = await self._store.call(read)
            if not owners:
                return
            yield len(owners), states
            after = owners[-1]

    def _concerns_others(self, owner: Owner) -> bool:
        copies = self._shares.copies(*owner)
        return bool(copies) and tuple(copies) != (self._shares.node_id,)

    def _note(self, survey: Survey, state: rpb.OwnerState) -> None:
        owner = owner_of(state)
        copies = self._shares.copies(*owner)
        if self._shares.node_id not in copies:
            if copies and len(survey.foreign) < MAX_FOREIGN:
                survey.foreign[owner] = None
            return
        serving, key = self._shares.owners(*owner), owner_key(*owner)
        bucket = bucket_of(key)
        for node_id in copies:
            if node_id != self._shares.node_id:
                shared = survey.shared_with(node_id)
                survey.coming[node_id] += node_id not in serving and key not in shared.owners(bucket)
                shared.put(key, state.digest)


def _states_of(owners: Sequence[Owner]) -> Callable[[ReplicaReader], list[rpb.OwnerState]]:
    def read(reader: ReplicaReader) -> list[rpb.OwnerState]:
        with reader.snapshot():
            return [reader.owner_state(owner) for owner in owners]

    return read


def bucket_digests(joined: bytes) -> list[bytes]:
    """The digests of a CompareBucketsRequest. Raises FieldInvalid."""
    if len(joined) != BUCKETS * DIGEST_BYTES:
        raise FieldInvalid(f"digests must have {BUCKETS} x {DIGEST_BYTES} bytes, not {len(joined)}", field="digests")
    return [joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)]
