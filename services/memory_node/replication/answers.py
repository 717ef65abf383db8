"""What a partner may ask of this node: the other side of owners.py and reconcile.py. Everything it says is bounded here."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from ndml.crdt.digests import DIGEST_BYTES
from ndml.crdt.iblt import Encoder, next_batch
from ndml.crdt.rates import AuthorRates
from ndml.errors import FieldInvalid, Overloaded, StaleEpoch
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from ndml.runtime.telemetry import link_here
from services.memory_node.positions import noted, notes_in
from services.memory_node.records import Owner
from services.memory_node.replication.joining import Joins
from services.memory_node.replication.owners import Catalog, bucket_digests
from services.memory_node.replication.ports import LocalStore, ReplicaReader, Shares, Sleep, UpdateGuard
from services.memory_node.replication.reconcile import KEY_BYTES, Ours, parted, read_ours, rows
from services.memory_node.replication.settings import SweepSection
from services.memory_node.requests import recent

MOST_PUSHED = 1024
"""Records of one message, as the proto says."""


class Answers:
    """Methods are the RPCs. Raise FieldInvalid for what cannot be asked, Overloaded past `sweep.serve_at_once`, StoreUnavailable.

    rates: how much partners may bring of one author; past it their streams wait
    """

    def __init__(
        self,
        store: LocalStore,
        shares: Shares,
        catalog: Catalog,
        joins: Joins,
        settings: SweepSection,
        sleep: Sleep,
        guard: UpdateGuard | None = None,
        rates: AuthorRates | None = None,
    ) -> None:
        self._guard = guard
        self._rates = rates
        self._store = store
        self._shares = shares
        self._catalog = catalog
        self._joins = joins
        self._settings = settings
        self._sleep = sleep
        self._under_way = 0

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._under_way >= self._settings.serve_at_once:
            raise Overloaded(f"{self._under_way} partners are served (sweep.serve_at_once): come back shortly")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def list_owners(self, request: rpb.ListOwnersRequest) -> AsyncIterator[rpb.ListOwnersResponse]:
        """As the proto says."""
        with self._turn():
            async for states in self._catalog.states(request.shared_with, request.buckets):
                yield rpb.ListOwnersResponse(owners=states)

    async def compare(self, request: rpb.CompareBucketsRequest) -> rpb.CompareBucketsResponse:
        """As the proto says."""
        theirs = bucket_digests(request.digests)
        with self._turn():
            survey = await self._catalog.survey()
            differing = survey.shared_with(request.node_id).differing(theirs)
        return rpb.CompareBucketsResponse(differing=differing, epoch=survey.epoch, replica=self._store.replica)

    async def symbols(self, request: rpb.StreamSymbolsRequest) -> AsyncIterator[rpb.StreamSymbolsResponse]:
        """In blocks that grow with what was sent, and with pauses: who has enough leaves before much is wasted."""
        owner = _owner(request.tenant, request.user)
        if len(request.key) != KEY_BYTES:
            raise FieldInvalid(f"key must have {KEY_BYTES} bytes that nobody could know before", field="key")
        if not request.limit:
            raise FieldInvalid("limit must be at least 1 symbol", field="limit")
        limit = min(request.limit, self._settings.symbols)
        with self._turn():
            ours, encoder = await self._store.call(lambda reader: _encoded(reader, owner, request.key, limit))
            state: rpb.OwnerState | None = ours.state
            sent = 0
            while sent < limit:
                count = min(next_batch(sent), limit - sent)
                block = await self._store.call(_block(encoder, sent, count))
                yield rpb.StreamSymbolsResponse(symbols=block, owner=state)
                state = None
                sent += count
                await self._sleep(self._settings.symbols_pause_s)

    async def fetch(self, request: rpb.FetchRecordsRequest) -> AsyncIterator[rpb.FetchRecordsResponse]:
        """Records, or the signed updates that they are made of, in chunks; last the owner's state as it was when the stream began."""
        owner = _owner(request.tenant, request.user)
        digests, ids = _split(request.digests, "digests"), _split(request.trace_ids, "trace_ids")
        with self._turn():
            ours = await self._store.call(lambda reader: read_ours(reader, owner))
            wanted = rows(ours.trace_ids) if request.all else list(dict.fromkeys([*ours.ids_of(digests), *ids]))
            link_here(recent.of_traces(wanted))
            for start in range(0, len(wanted), self._settings.chunk_records):
                some = wanted[start : start + self._settings.chunk_records]
                if self._guard is not None:
                    for updates in parted(await self._guard.kept(owner, some), self._settings.chunk_bytes):
                        yield rpb.FetchRecordsResponse(updates=updates)
                    if not request.all:  # a backup asks for all, and keeps records
                        continue
                for message in await self._read(owner, some):
                    yield message
            if request.all and not await self._still_there(owner, ours):
                raise StaleEpoch("the owner was handed over while it was read: ask its owners")
            yield rpb.FetchRecordsResponse(owner=ours.state)

    async def _read(self, owner: Owner, trace_ids: Sequence[bytes]) -> list[rpb.FetchRecordsResponse]:
        def read(reader: ReplicaReader) -> list[rpb.FetchRecordsResponse]:
            parts = list(parted(reader.records(owner, trace_ids), self._settings.chunk_bytes))
            # Looked at last: nothing in the records is past it.
            notes = noted(owner, reader.shown(owner))
            return [rpb.FetchRecordsResponse(records=records, updates=notes) for records in parts]

        return await self._store.call(read)

    async def _still_there(self, owner: Owner, ours: Ours) -> bool:
        """Records are never removed one by one: as many as before means all of them."""
        now = await self._store.call(lambda reader: reader.owner_state(owner))
        return now.records >= ours.state.records

    async def _join(self, owner: Owner, request: rpb.PushRecordsRequest) -> int:
        """Raises FieldInvalid for unsigned records where updates are signed."""
        if self._guard is None or (request.records and self._guard.accepts_records):
            return await self._joins.records(owner, request.records, "pushed", request.heads, notes_in(request.updates))
        if request.records:
            text = "updates are signed here: send `updates` (an operator's restore needs replication.signing.accept_restore)"
            raise FieldInvalid(text, field="records")
        good = await self._guard.inspected(_of_owner(owner, request.updates))
        # Whoever sends what nobody signed is not believed in what it says it has sent.
        heads = request.heads if len(good) == len(request.updates) else ()
        changed = await self._joins.repaired(owner, good, "pushed", self._guard, heads)
        await self._slow(good)
        return changed

    async def _slow(self, updates: Sequence[rpb.OwnerUpdate]) -> None:
        """The answer waits where there is too much of an author; never so long that the partner takes this node for gone."""
        said = Counter(update.node_id for update in updates if update.records)
        if self._rates is None or not said:
            return
        wait_s = max(self._rates.took(name, count) for name, count in said.items())
        if wait_s > 0:
            metrics.AUTHORS_SLOWED.labels("repair").inc()
            await self._sleep(min(wait_s, self._settings.silence_s / 2))

    async def push(self, request: rpb.PushRecordsRequest) -> rpb.PushRecordsResponse:
        """On disk when it is answered."""
        owner = _owner(request.tenant, request.user)
        if len(request.records) > MOST_PUSHED:
            raise FieldInvalid(f"{len(request.records)} records in one message, at most {MOST_PUSHED}: send several", field="records")
        if self._shares.node_id not in self._shares.copies(*owner):
            raise StaleEpoch(f"this node is no copy of the owner by epoch {self._shares.epoch}")
        answer = rpb.PushRecordsResponse()
        answer.changed = await self._join(owner, request)
        if request.heads:
            answer.digest = (await self._store.call(lambda reader: reader.owner_state(owner))).digest
        return answer


def _owner(tenant: str, user: str) -> Owner:
    if not tenant or not user:
        raise FieldInvalid("an owner has a tenant and a user", field="user" if tenant else "tenant")
    return Owner(tenant, user)


def _of_owner(owner: Owner, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[rpb.OwnerUpdate]:
    if any((update.tenant, update.user) != owner for update in updates):
        raise FieldInvalid("an update is of another owner than its request", field="updates.user")
    if sum(len(update.records) for update in updates) > MOST_PUSHED:
        raise FieldInvalid(f"more than {MOST_PUSHED} records in one message: send several", field="updates")
    return updates


def _split(joined: bytes, field: str) -> list[bytes]:
    if len(joined) % DIGEST_BYTES:
        raise FieldInvalid(f"{field} must be whole items of {DIGEST_BYTES} bytes", field=field)
    return [joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)]


def _encoded(reader: ReplicaReader, owner: Owner, key: bytes, limit: int) -> tuple[Ours, Encoder]:
    ours = read_ours(reader, owner)
    return ours, Encoder(ours.digests, key, limit)


def _block(encoder: Encoder, start: int, count: int) -> Callable[[ReplicaReader], bytes]:
    """Made where blocking work is done: the first symbols of many records take some 40 ms."""
    return lambda reader: encoder.symbols(start, count)
