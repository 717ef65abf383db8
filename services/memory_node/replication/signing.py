"""Signatures of updates: this node's own are signed in the order of its journal, others' are judged before they are joined.

An update that builds on others waits for them, within bounds; where this node has what they say by other ways (a repair), it waits for
nothing. What is taken is kept as it came, so that a repair passes on what authors signed and not what this node makes of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b, sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.crdt.audit import Admission, Auditor, Kind, Limits
from ndml.crdt.chain import Signer, row_of
from ndml.crdt.clock import LOGICAL_BITS
from ndml.crdt.envelope import Envelope, check_leaves, check_some, leaf
from ndml.crdt.evidence import Proof, Vouch, vouch
from ndml.crdt.rates import AuthorRates
from ndml.crdt.roster import Roster
from ndml.errors import FieldInvalid, InvalidArgument, StoreUnavailable
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime.log import get_logger
from services.memory_node.records import Owner
from services.memory_node.replication.chains import ChainFile
from services.memory_node.replication.ledger import bare, item, leaves_of
from services.memory_node.replication.parts import check_own, own_update
from services.memory_node.replication.ports import Admitted, LocalStore

log = get_logger(__name__)

Heads = Mapping[Owner, Mapping[int, int]]

MOST_RUMOURS = 1024
"""Envelopes between two rounds of rumours, and updates of one liar: the oldest are left out, and found out by their successors."""
_LOOK_S = 0.01
_SEAL_S = 10.0
"""A commit is signed within milliseconds; past this the disk of the chains fails, and the stream is opened anew later."""


class Notary:
    """Signs and judges. Everything blocks and may come from any thread; each call is one durable change. Raises StoreUnavailable.

    most_waiting  updates that wait for others at once; past it the oldest are left to the sweep
    rates         how much is taken of one author by way of gateways
    sealed        position up to which the writer has had everything signed; None: nobody signs at the commit
    """

    def __init__(
        self,
        chains: ChainFile,
        roster: Roster,
        key: Ed25519PrivateKey,
        node_id: str,
        most_waiting: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rates: AuthorRates | None = None,
    ) -> None:
        self.rates = rates or AuthorRates(0, time.monotonic)
        self.sealed: int | None = None
        self._chains = chains
        self._key = key
        self._node_id = node_id
        self._now_ms = now_ms
        self._heard: deque[rpb.OwnerUpdate] = deque(maxlen=MOST_RUMOURS)
        self._spread: set[str] = set()
        self._unsigned = 0
        with chains.turn():
            self._auditor = Auditor(roster, now_ms, chains, Limits(pending=most_waiting))

    @property
    def quarantined(self) -> Sequence[str]:
        return sorted(self._auditor.quarantined)

    def trust(self, node_id: str) -> int:
        """0 to 100, for the weighing of siblings."""
        return self._auditor.trust(node_id)

    def trust_of(self, replica: int) -> int:
        """As `trust`, of whoever the store belongs to; 0 for a store of nobody on the roster."""
        authors = self._auditor.roster.authors
        return next((self.trust(name) for name in authors if self._auditor.roster.owns(name, replica)), 0)

    @property
    def weights(self) -> bytes:
        """Names everybody's trust as it is now: equal ones weigh siblings alike. 16 bytes."""
        said = "\n".join(f"{name} {self.trust(name)}" for name in self._auditor.roster.authors)
        return blake2b(said.encode(), digest_size=16, person=b"ndml-weights").digest()

    def close(self) -> None:
        self._chains.close()

    def forget(self, up_to: int) -> None:
        """This node's updates up to a position are not asked for by their place any more."""
        with self._chains.turn():
            self._chains.forget_own(up_to)

    def sign_all(self, updates: Sequence[rpb.OwnerUpdate]) -> list[rpb.OwnerUpdate]:
        """This node's updates with their signatures; one that was signed before is as it was then, whatever its records say now.

        An owner's updates must come in the order of their positions, all of them. Where jobs before ran unsigned the update stays so too.
        """
        with self._chains.turn():
            return [self._sign(update) for update in updates]

    def _sign(self, update: rpb.OwnerUpdate) -> rpb.OwnerUpdate:
        before = self._chains.own(update.replica, update.counter)
        if before is not None:
            return rpb.OwnerUpdate.FromString(before)
        signer = Signer(self._key, self._node_id, update.replica, self._chains)
        made, _ = own_update(update)
        leaves = [leaf(item(record)) for record in made.records]
        clock = self._now_ms() << LOGICAL_BITS
        try:
            envelope = signer.seal(made.tenant, made.user, made.previous, made.counter, clock, leaves)
        except FieldInvalid as error:
            self._not_signed(made, error)
            return made
        made.node_id, made.envelope, made.signature = self._node_id, envelope.canonical, envelope.signature
        self._chains.put(row_of(envelope))
        self._chains.put_own(update.replica, update.counter, made.SerializeToString())
        self._chains.ledger.keep(made)
        return made

    def _not_signed(self, update: rpb.OwnerUpdate, error: FieldInvalid) -> None:
        """A store that ran unsigned has thousands of these: a line for the first, and whenever there are twice as many."""
        self._unsigned += 1
        if self._unsigned & (self._unsigned - 1) == 0:
            fix = "see THREAT_MODEL.md, switching signing off and on"
            log.error("updates_not_signed", author=self._node_id, count=self._unsigned, newest=update.counter, error=error.message, fix=fix)

    def signed_before(self, updates: Sequence[rpb.OwnerUpdate]) -> list[rpb.OwnerUpdate]:
        """This node's updates as they were signed; such as were not are as given."""
        with self._chains.turn():
            found = [self._chains.own(update.replica, update.counter) for update in updates]
        return [update if body is None else rpb.OwnerUpdate.FromString(body) for update, body in zip(updates, found, strict=True)]

    def kept(self, owner: Owner, trace_ids: Sequence[bytes]) -> list[rpb.OwnerUpdate]:
        """Signed updates that say all there is to say about these traces, as far as they came signed; with these records alone."""
        with self._chains.turn():
            return self._vouched(self._chains.ledger.of_traces(owner, trace_ids))

    def judge(self, updates: Sequence[rpb.OwnerUpdate], heads: Heads) -> list[Admitted]:
        """What becomes of updates of others, in their order, and then of those that waited for them. `heads`: of their owners, here."""
        with self._watched():
            done = [self._judge(update, heads.get(Owner(update.tenant, update.user), {})) for update in updates]
            for _, payload, verdict in self._auditor.drain():
                done.append(_admitted(rpb.OwnerUpdate.FromString(payload), verdict))
            self._heard.extend(bare(each.update) for each in done if each.join)
        return done

    def inspect(self, updates: Sequence[rpb.OwnerUpdate]) -> list[rpb.OwnerUpdate]:
        """Those of a repair that may be joined, whole or in part: what stands before them came another way, or was superseded."""
        with self._watched():
            return [update for update in updates if self._passes(update)]

    def keep(self, updates: Iterable[rpb.OwnerUpdate]) -> None:
        """For repairs, what was judged and then joined."""
        with self._chains.turn(durable=False):
            for update in updates:
                self._chains.ledger.keep(update)

    def learn(self, proofs: Iterable[bytes]) -> None:
        """Of other members. Raises RequestMalformed for what is no proof."""
        parsed = [Proof.from_bytes(proof) for proof in proofs]
        with self._watched():
            for proof in parsed:
                self._auditor.learn(proof)

    def rumours(self) -> list[rpb.OwnerUpdate]:
        """Envelopes taken since the last call, without their records: who compares them finds who says different things to different nodes.

        And everything kept of authors that were quarantined since, so that all copies end with the same.
        """
        with self._chains.turn(durable=False):
            said = [self._heard.popleft() for _ in range(len(self._heard))]
            found = self._auditor.quarantined
            for name in [name for name in found if name not in self._spread]:
                self._spread.add(name)
                replicas = sorted({found[name].one.replica, found[name].other.replica})
                said += self._vouched(self._chains.ledger.of_author(name, replicas, MOST_RUMOURS))
        return said

    @property
    def proofs(self) -> list[bytes]:
        """Against the quarantined, by name."""
        found = self._auditor.quarantined
        return [found[name].to_bytes() for name in sorted(found)]

    def _vouched(self, updates: list[rpb.OwnerUpdate]) -> list[rpb.OwnerUpdate]:
        """With this node's word for those that others refuse by now: it took them, so they must end in every honest copy, or in none."""
        convicted = self._auditor.quarantined
        for update in updates:
            if update.node_id in convicted:
                update.vouch = vouch(self._key, self._node_id, sha256(update.envelope).digest()).to_bytes()
        return updates

    def _hear(self, update: rpb.OwnerUpdate, envelope: Envelope) -> None:
        """The sender's word for an update of somebody in quarantine. Raises RequestMalformed."""
        if update.vouch and update.node_id in self._auditor.quarantined:
            word = Vouch.from_bytes(update.vouch)
            if word.hash == envelope.hash:
                self._auditor.take(word)

    def _watched(self) -> _Watched:
        return _Watched(self._chains, self)

    def _judge(self, update: rpb.OwnerUpdate, heads: Mapping[int, int]) -> Admitted:
        try:
            envelope = _envelope_of(update)
            if update.leaves:
                raise FieldInvalid("an update is sent whole, but for a repair", field="leaves")
            self._hear(update, envelope)
        except InvalidArgument as error:
            log.warning("update_refused", author=update.node_id, reason=error.reason, error=error.message)
            return Admitted(update, False, True)
        verdict = self._auditor.admit(envelope, update.SerializeToString())
        if verdict.kind is Kind.PARK and all(heads.get(dep.replica, 0) >= dep.counter for dep in verdict.missing):
            # What it builds on is here, without its signatures.
            joined = self._auditor.adopt([envelope])
            return Admitted(update, bool(joined), bool(joined))
        if verdict.kind is Kind.KNOWN:
            # Perhaps judged, and not joined before this node stopped; joining again changes nothing.
            known = self._chains.has(*envelope.owner, envelope.replica, envelope.counter, envelope.hash)
            return Admitted(update, known, True)
        return _admitted(update, verdict)

    def _passes(self, update: rpb.OwnerUpdate) -> bool:
        try:
            envelope = _envelope_of(update)
            self._hear(update, envelope)
            verdict = self._auditor.inspect(envelope)
        except InvalidArgument as error:
            log.warning("update_refused", author=update.node_id, reason=error.reason, error=error.message)
            return False
        if verdict.kind is Kind.REJECT:
            log.warning("update_refused", author=update.node_id, reason=str(verdict.reason), error="see THREAT_MODEL.md")
        return verdict.joins


class _Watched:
    """One turn of the chains, and a word in the log when somebody is quarantined in it."""

    def __init__(self, chains: ChainFile, notary: Notary) -> None:
        self._turn = chains.turn(durable=False)
        self._notary = notary
        self._before = notary.quarantined

    def __enter__(self) -> None:
        self._turn.__enter__()

    def __exit__(self, *failure: object) -> None:
        self._turn.__exit__(*failure)  # type: ignore[arg-type]
        if self._notary.quarantined != self._before:
            log.error("author_quarantined", authors=list(self._notary.quarantined))


class SigningGuard:
    """Component: UpdateGuard of the ports around a Notary, whose file it closes.

    accepts_records  unsigned records of a restore are taken
    """

    def __init__(self, store: LocalStore, notary: Notary, *, accepts_records: bool = False) -> None:
        self._store = store
        self.notary = notary
        self.accepts_records = accepts_records

    @property
    def quarantined(self) -> Sequence[str]:
        return self.notary.quarantined

    @property
    def proofs(self) -> Sequence[bytes]:
        return self.notary.proofs

    async def start(self) -> None:
        """The file is open."""

    async def stop(self) -> None:
        """The node stops after this, and signs until then: it closes the file."""

    async def admit(self, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[Admitted]:
        owners = {Owner(update.tenant, update.user) for update in updates}
        heads = await self._store.call(lambda reader: {owner: reader.heads(owner) for owner in owners})
        return await asyncio.to_thread(self.notary.judge, updates, heads)

    async def signed(self, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[rpb.OwnerUpdate]:
        """Raises StoreUnavailable, also where the writer could not sign them."""
        if self.notary.sealed is None:
            return await asyncio.to_thread(self.notary.sign_all, updates)
        wanted = max((update.counter for update in updates), default=0)
        for _ in range(round(_SEAL_S / _LOOK_S)):
            if self.notary.sealed >= wanted:
                return await asyncio.to_thread(self.notary.signed_before, updates)
            await asyncio.sleep(_LOOK_S)
        raise StoreUnavailable("what was written is not signed: look at the disk of authors.db")

    async def kept(self, owner: Owner, trace_ids: Sequence[bytes]) -> Sequence[rpb.OwnerUpdate]:
        return await asyncio.to_thread(self.notary.kept, owner, trace_ids)

    async def inspected(self, updates: Sequence[rpb.OwnerUpdate]) -> Sequence[rpb.OwnerUpdate]:
        return await asyncio.to_thread(self.notary.inspect, updates)

    async def keep(self, updates: Sequence[rpb.OwnerUpdate]) -> None:
        await asyncio.to_thread(self.notary.keep, updates)

    async def rumours(self) -> Sequence[rpb.OwnerUpdate]:
        return await asyncio.to_thread(self.notary.rumours)

    async def learn(self, proofs: Sequence[bytes]) -> None:
        await asyncio.to_thread(self.notary.learn, proofs)

    async def forget(self, up_to: int) -> None:
        await asyncio.to_thread(self.notary.forget, up_to)


def _admitted(update: rpb.OwnerUpdate, verdict: Admission) -> Admitted:
    if verdict.kind is Kind.REJECT:
        log.warning("update_refused", author=update.node_id, reason=str(verdict.reason), error="see THREAT_MODEL.md")
    return Admitted(update, verdict.joins, verdict.kind is not Kind.PARK and not verdict.missing, verdict.joins)


def _envelope_of(update: rpb.OwnerUpdate) -> Envelope:
    """Raises RequestMalformed, FieldInvalid unless the envelope is about this update, and its author speaks for itself."""
    envelope = Envelope.parse(update.envelope, update.signature)
    said = (update.tenant, update.user, update.node_id, update.replica, update.previous, update.counter)
    signed = (envelope.tenant, envelope.user, envelope.node_id, envelope.replica, envelope.previous, envelope.counter)
    if said != signed:
        raise FieldInvalid("what is signed is another update", field="envelope")
    if update.leaves:
        if len(update.places) != len(update.records) or len(set(update.places)) != len(update.places):
            raise FieldInvalid("each record that is sent has a place of its own", field="places")
        check_some(envelope, leaves_of(update), dict(zip(update.places, map(item, update.records), strict=True)))
    else:
        check_leaves(envelope, leaves_of(update))
    check_own(update)
    return envelope
