"""Two copies of one owner, made equal: coded symbols tell what differs, the records that differ go each way, and then heads join.

Where one side has nothing, or so much differs that the symbols give up, everything is copied. Records only grow (they are joined, never
overwritten), so what is read a moment later than the digests stands for at least as much; no long snapshot is held on either side.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from ndml.crdt.digests import DIGEST_BYTES
from ndml.crdt.iblt import Decoder
from ndml.errors import NdmlError, OwnerUnavailable, RequestMalformed
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics, semconv
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import count_here, link_here
from services.memory_node.positions import noted, notes_in
from services.memory_node.records import Owner
from services.memory_node.replication.joining import Joins
from services.memory_node.replication.pace import Pace
from services.memory_node.replication.ports import Digests, LocalStore, Partner, ReplicaReader, UpdateGuard
from services.memory_node.replication.settings import SweepSection
from services.memory_node.requests import recent

log = get_logger(__name__)

KEY_BYTES = 16

M = TypeVar("M", rpb.TraceRecord, rpb.OwnerUpdate)


@dataclass(frozen=True, slots=True)
class Mended:
    """What a reconciliation did. `covered`: the partner has all that we had when it began, on disk. `complete`: we have all that it had."""

    covered: bool = False
    complete: bool = False
    fetched: int = 0
    pushed: int = 0
    digest: bytes = b""
    """Ours when it began."""

    def __add__(self, later: Mended) -> Mended:
        return replace(later, fetched=self.fetched + later.fetched, pushed=self.pushed + later.pushed)


@dataclass(slots=True)
class Ours:
    """An owner as this node has it: one snapshot."""

    state: rpb.OwnerState
    digests: Digests
    trace_ids: Digests
    _by_digest: dict[bytes, bytes] = field(default_factory=dict)

    def ids_of(self, digests: Iterable[bytes]) -> list[bytes]:
        """Trace ids of the records with these digests, as far as there are any."""
        if not self._by_digest:
            self._by_digest = dict(zip(rows(self.digests), rows(self.trace_ids), strict=True))
        return [self._by_digest[digest] for digest in digests if digest in self._by_digest]


@dataclass(slots=True)
class _Came:
    """A copy under way: records so far, the message that is not joined yet, the state in the last message, and whether all was good.

    seen  where updates are signed: traces that they were about
    """

    count: int = 0
    held: rpb.FetchRecordsResponse = field(default_factory=rpb.FetchRecordsResponse)
    state: rpb.OwnerState | None = None
    clean: bool = True
    seen: set[bytes] = field(default_factory=set)


def rows(column: Digests) -> list[bytes]:
    """Rows of [n, 16] as bytes."""
    flat = column.tobytes()
    return [flat[at : at + DIGEST_BYTES] for at in range(0, len(flat), DIGEST_BYTES)]


def read_ours(reader: ReplicaReader, owner: Owner) -> Ours:
    with reader.snapshot():
        return Ours(reader.owner_state(owner), *reader.record_digests(owner))


def parted(records: Iterable[M], most_bytes: int) -> Iterator[list[M]]:
    """In order, in parts of up to `most_bytes`; one that is larger alone is a part of its own. Nothing gives nothing."""
    part: list[M] = []
    size = 0
    for record in records:
        grown = size + record.ByteSize()
        if part and grown > most_bytes:
            yield part
            part, grown = [], record.ByteSize()
        part.append(record)
        size = grown
    if part:
        yield part


def new_key() -> bytes:
    """A key that nobody can know before the exchange that it is made for."""
    return secrets.token_bytes(KEY_BYTES)


class Reconciler:
    """Mends one owner with one partner. `make_key`: of an exchange, not known to anybody before it (see ndml.crdt.iblt)."""

    def __init__(
        self,
        store: LocalStore,
        joins: Joins,
        settings: SweepSection,
        pace: Pace,
        make_key: Callable[[], bytes] = new_key,
        guard: UpdateGuard | None = None,
    ) -> None:
        self._guard = guard
        self._store = store
        self._joins = joins
        self._settings = settings
        self._pace = pace
        self._make_key = make_key

    async def mend(self, owner: Owner, partner: Partner, *, fetch: bool = True, claimed: int | None = None) -> Mended:
        """Make each copy have what both had at some moment after the call. `fetch=False`: only give, for an owner that is not ours.
        `claimed`: records that the partner has said it has.

        Raises NdmlError: of the store, of the partner, of bytes from it that cannot be.
        """
        done = Mended()
        for _ in range(self._settings.passes):
            ours = await self._store.call(lambda reader: read_ours(reader, owner))
            done += await self._pass(owner, partner, ours, fetch, claimed)
            if done.covered and (done.complete or not fetch):
                break
        return done

    async def _pass(self, owner: Owner, partner: Partner, ours: Ours, fetch: bool, claimed: int | None) -> Mended:
        if not ours.state.records:
            if not fetch:
                return Mended(covered=True, digest=ours.state.digest)
            if claimed is None:
                claimed = (await self._ask_state(owner, partner)).records
            fetched = await self._fetch_all(owner, partner, claimed)
            return Mended(True, True, fetched, digest=ours.state.digest)
        decoder, theirs = await self._compare(owner, partner, ours)
        if decoder is None and theirs.digest == ours.state.digest:
            await self._settle_heads(owner, partner, ours.state, theirs, fetch)
            return Mended(True, fetch, digest=ours.state.digest)
        if decoder is None:
            return await self._whole(owner, partner, ours, theirs, fetch)
        return await self._exchange(owner, partner, ours, theirs, decoder, fetch)

    async def _ask_state(self, owner: Owner, partner: Partner) -> rpb.OwnerState:
        request = rpb.StreamSymbolsRequest(tenant=owner.tenant, user=owner.user, key=self._make_key(), limit=1)
        async for message in partner.symbols(request):
            return self._believed(message.owner)
        raise OwnerUnavailable("the partner ended the stream before it said anything: come back later")

    async def _compare(self, owner: Owner, partner: Partner, ours: Ours) -> tuple[Decoder | None, rpb.OwnerState]:
        """A finished decoder, or None: nothing differs, one side is empty, or too much differs to say what; and the partner's state."""
        key, limit = self._make_key(), self._settings.symbols
        decoder = Decoder(ours.digests, key, limit)
        theirs: rpb.OwnerState | None = None
        request = rpb.StreamSymbolsRequest(tenant=owner.tenant, user=owner.user, key=key, limit=limit)
        async for message in partner.symbols(request):
            if theirs is None:
                theirs = self._believed(message.owner)
                if theirs.digest == ours.state.digest or not theirs.records:
                    return None, theirs
            if not message.symbols:
                raise RequestMalformed("a message without symbols: send none", field="symbols")
            await self._count("symbols", len(message.symbols))
            if decoder.add(message.symbols):
                return decoder, theirs
            if decoder.exhausted:
                return None, theirs
        if theirs is None:
            raise OwnerUnavailable("the partner ended the stream before it said anything: come back later")
        return None, theirs

    async def _exchange(self, owner: Owner, partner: Partner, ours: Ours, theirs: rpb.OwnerState, decoder: Decoder, fetch: bool) -> Mended:
        fetched, complete = 0, fetch
        wanted = decoder.missing_here() if fetch else []
        if wanted:
            fetched = await self._fetch(owner, partner, wanted, theirs.heads)
            complete = fetched >= len(wanted)
        elif fetch and _tells(theirs, ours.state):
            await self._joins.records(owner, [], "fetched", theirs.heads)
        missing = ours.ids_of(decoder.missing_there())
        covered = await self._push(owner, partner, missing, ours.state, tell=_tells(ours.state, theirs))
        return Mended(covered, complete, fetched, len(missing), ours.state.digest)

    async def _whole(self, owner: Owner, partner: Partner, ours: Ours, theirs: rpb.OwnerState, fetch: bool) -> Mended:
        fetched = 0
        if fetch and theirs.records:
            fetched = await self._fetch_all(owner, partner, theirs.records)
        ids = rows(ours.trace_ids)
        covered = await self._push(owner, partner, ids, ours.state, tell=True)
        return Mended(covered, fetch, fetched, len(ids), ours.state.digest)

    async def _settle_heads(self, owner: Owner, partner: Partner, ours: rpb.OwnerState, theirs: rpb.OwnerState, fetch: bool) -> None:
        """Equal records: what one side knows of authors holds for the other."""
        if fetch and _tells(theirs, ours):
            await self._joins.records(owner, [], "fetched", theirs.heads)
        if _tells(ours, theirs):
            await self._push(owner, partner, [], ours, tell=True)

    async def _fetch(self, owner: Owner, partner: Partner, digests: list[bytes], heads: Sequence[rpb.Head]) -> int:
        """Join the partner's records of these digests, and its heads when all came; fewer come where records changed meanwhile."""
        request = rpb.FetchRecordsRequest(tenant=owner.tenant, user=owner.user, digests=b"".join(digests))
        came = await self._take(owner, partner.fetch(request), len(digests))
        await self._join(owner, came, heads if came.count == len(digests) else ())
        return came.count

    async def _fetch_all(self, owner: Owner, partner: Partner, claimed: int) -> int:
        """Join everything of the partner's, and its heads. An owner may grow while it is copied, within reason."""
        most = min(self._settings.most_records, 2 * claimed + self._settings.chunk_records)
        stream = partner.fetch(rpb.FetchRecordsRequest(tenant=owner.tenant, user=owner.user, all=True))
        came = await self._take(owner, stream, most)
        if came.state is None:
            raise OwnerUnavailable("the copy ended before its last message: come back later")
        await self._join(owner, came, came.state.heads)
        return came.count

    async def _take(self, owner: Owner, stream: AsyncIterator[rpb.FetchRecordsResponse], most: int) -> _Came:
        """Join what comes, but for the last message: it is left to be joined with the heads, as one write.

        Raises RequestMalformed for more than `most` records.
        """
        came = _Came()
        async for message in stream:
            self._check(came, message, most)
            await self._count("fetched", message.ByteSize())
            came.state = message.owner if message.HasField("owner") else None
            if message.records or message.updates:
                await self._join(owner, came)
                came.held = message
        return came

    def _check(self, came: _Came, message: rpb.FetchRecordsResponse, most: int) -> None:
        if self._guard is None:
            came.count += len(message.records)
        else:
            came.seen.update(record.trace_id for update in message.updates for record in update.records)
            came.count = len(came.seen)
        if came.count > most:
            raise RequestMalformed(f"more than {most} records: the copy was given up", field="records")
        if not (message.records or message.updates or message.HasField("owner")):
            raise RequestMalformed("a message without records: send none", field="records")

    async def _join(self, owner: Owner, came: _Came, heads: Iterable[rpb.Head] = ()) -> None:
        """The message that is held. Where something in the copy was refused the partner is not believed in its heads."""
        if self._guard is None:
            await self._joins.records(owner, came.held.records, "fetched", heads, notes_in(came.held.updates))
            return
        updates = [update for update in came.held.updates if (update.tenant, update.user) == owner]
        good = await self._guard.inspected(updates)
        came.clean = came.clean and len(good) == len(came.held.updates)
        await self._joins.repaired(owner, good, "fetched", self._guard, heads if came.clean else ())

    async def _push(self, owner: Owner, partner: Partner, trace_ids: list[bytes], ours: rpb.OwnerState, *, tell: bool) -> bool:
        """Have the partner join these records and then our heads; without records the heads alone, where `tell` says so.

        False: of some there is no signed update, so that they cannot be given.
        """
        held = rpb.PushRecordsRequest(tenant=owner.tenant, user=owner.user)
        given = 0
        for start in range(0, len(trace_ids), self._settings.chunk_records):
            some = trace_ids[start : start + self._settings.chunk_records]
            messages, count = await self._messages(owner, some)
            link_here(recent.of_traces(some))
            given += count
            for message in messages:
                if held.records or held.updates:
                    await self._send(partner, held)
                held = message
        if given == len(trace_ids) and (trace_ids or tell):
            # With the last records: they say that everything before them is there.
            held.heads.extend(ours.heads)
        if held.records or held.updates or held.heads:
            await self._send(partner, held)
        return given == len(trace_ids)

    async def _messages(self, owner: Owner, trace_ids: list[bytes]) -> tuple[list[rpb.PushRecordsRequest], int]:
        """What to push for these traces, and of how many there is something."""
        limit, request = self._settings.chunk_bytes, partial(rpb.PushRecordsRequest, tenant=owner.tenant, user=owner.user)
        if self._guard is not None:
            kept = await self._guard.kept(owner, trace_ids)
            found = {record.trace_id for update in kept for record in update.records}
            return [request(updates=updates) for updates in parted(kept, limit)], len(found)

        def read(reader: ReplicaReader) -> list[rpb.PushRecordsRequest]:
            parts = list(parted(reader.records(owner, trace_ids), limit))
            # Looked at last: nothing in the records is past it.
            notes = noted(owner, reader.shown(owner))
            return [request(records=records, updates=notes) for records in parts]

        return await self._store.call(read), len(trace_ids)

    async def _send(self, partner: Partner, request: rpb.PushRecordsRequest) -> None:
        await self._count("pushed", request.ByteSize())
        await partner.push(request)

    def _believed(self, state: rpb.OwnerState) -> rpb.OwnerState:
        """Raises RequestMalformed where the numbers cannot be."""
        if not 0 <= state.records <= self._settings.most_records or len(state.digest) != DIGEST_BYTES:
            raise RequestMalformed(f"{state.records} records of one owner are not believed (sweep.most_records)", field="owner")
        return state

    async def _count(self, way: str, size: int) -> None:
        metrics.REPAIR_BYTES.labels(way).inc(size)
        count_here(semconv.BYTES, size)
        await self._pace.moved_bytes(size)


def _tells(one: rpb.OwnerState, other: rpb.OwnerState) -> bool:
    """Whether `one` knows more of an author than `other`."""
    known = {head.replica: head.counter for head in other.heads}
    return any(head.counter > known.get(head.replica, 0) for head in one.heads)


def brief(error: NdmlError) -> dict[str, str]:
    """For the log."""
    return {"reason": error.reason, "error": error.message}
