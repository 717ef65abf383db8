"""Which signed updates a replica takes: a judge that every honest replica runs, and that ends with the same answer on all of them.

An update is taken when its author is on the roster, its signature is good and everything before it is here. Two envelopes that no honest
author signs are proof against theirs: it is quarantined, both updates stay as siblings, and of its other updates only those still enter
that somebody took before the proof was known: an ancestor or dependency of what is taken, or one that another member vouches for.
Without that exception replicas that learned of the lie at different times would stay apart for good; with it, a liar needs an accomplice
on the roster, by name, for each further update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum

from ndml.crdt.chain import ChainStore, row_of
from ndml.crdt.envelope import NO_HASH, Dep, Envelope, conflict
from ndml.crdt.evidence import Proof, Vouch
from ndml.crdt.pending import Pending
from ndml.crdt.roster import Roster, check_successor


class Kind(StrEnum):
    """What became of an update."""

    ACCEPT = "accept"
    KNOWN = "known"
    PARK = "park"
    REJECT = "reject"
    EQUIVOCATION = "equivocation"


class Reason(StrEnum):
    """Why an update was rejected."""

    UNKNOWN_AUTHOR = "unknown_author"
    UNTRUSTED = "untrusted"
    FOREIGN_REPLICA = "foreign_replica"
    QUARANTINED = "quarantined"
    BAD_SIGNATURE = "bad_signature"
    FUTURE = "future"
    NOT_FORWARD = "not_forward"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an Auditor."""

    future_ms: int = 60_000
    """How far an author's clock may lead ours: as the hybrid clock allows."""
    pending_per_author: int = 1024
    """Updates of one author that wait for their past: a minute of a busy author whose stream was cut."""
    pending: int = 8192
    """Updates that wait, of all authors."""
    pending_bytes: int = 64 << 20
    """What they weigh with their payloads: a queue of full batches must not fill the memory."""
    exempt: int = 65_536
    """Hashes remembered that may enter although their author is quarantined; 100 bytes each, oldest out."""
    bound_replicas: bool = True
    """Stores carry their node's name in their number or stand on the roster. False: whoever writes first under a number has it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Verdict on one update.

    ACCEPT        join it
    KNOWN         it was here before, or is older than what is remembered: no effect
    PARK          `missing` has to come first; it is kept meanwhile
    REJECT        no effect, for `reason`; a quarantined author's may still enter once it is vouched for
    EQUIVOCATION  `proof` is new; the update itself is joined as a sibling, or parked where something is missing
    """

    kind: Kind
    reason: Reason | None = None
    missing: tuple[Dep, ...] = ()
    proof: Proof | None = None

    @property
    def joins(self) -> bool:
        """Whether the records are to be joined now."""
        return self.kind in (Kind.ACCEPT, Kind.EQUIVOCATION) and not self.missing


_ACCEPT = Admission(Kind.ACCEPT)
_KNOWN = Admission(Kind.KNOWN)


class Auditor:
    """Judges updates one after the other; one thread at a time.

    `store` is written by whatever takes an update in, so the caller commits it together with the records. When that transaction fails,
    what was parked and released in it is gone, and comes again by anti-entropy.
    """

    def __init__(self, roster: Roster, now_ms: Callable[[], int], store: ChainStore, limits: Limits | None = None) -> None:
        self._roster = roster
        self._now_ms = now_ms
        self._store = store
        self._limits = limits or Limits()
        self._pending = Pending(self._limits.pending_per_author, self._limits.pending, self._limits.pending_bytes)
        self._exempt: dict[bytes, None] = {}
        self._quarantined: dict[str, Proof] = {}
        self._load_proofs()

    @property
    def roster(self) -> Roster:
        """In force."""
        return self._roster

    @property
    def quarantined(self) -> dict[str, Proof]:
        """Authors that lied, and the proof against each."""
        return dict(self._quarantined)

    @property
    def parked(self) -> int:
        """Updates that wait for their past."""
        return len(self._pending)

    def trust(self, node_id: str) -> int:
        """0 .. 100 for the weighing of siblings; 0 for whom the roster does not know and for whom is quarantined."""
        return 0 if node_id in self._quarantined else self._roster.trust(node_id)

    def admit(self, envelope: Envelope, payload: bytes = b"", *, verified: bool = False) -> Admission:
        """Judge an update. payload: given back by drain() where it is parked. verified: verify_many has found its signature good.

        After an update that joins, call drain(): others may have waited for it.
        """
        if self._knows(envelope, envelope.dep):
            return _KNOWN
        missing = self._pending.missing(envelope.hash)
        if missing is not None:
            return Admission(Kind.PARK, missing=missing)
        reason = self._refusal(envelope, verified)
        return Admission(Kind.REJECT, reason) if reason else self._place(envelope, payload)

    def drain(self) -> list[tuple[Envelope, bytes, Admission]]:
        """Updates whose past has come since: (envelope, its payload, verdict). Join those that say so; the others are over."""
        done: list[tuple[Envelope, bytes, Admission]] = []
        while (parked := self._pending.next_ready()) is not None:
            verdict = self.admit(parked.envelope, parked.payload, verified=True)
            if verdict.kind not in (Kind.KNOWN, Kind.PARK):
                done.append((parked.envelope, parked.payload, verdict))
        return done

    def learn(self, proof: Proof) -> bool:
        """Another member sent a proof. True: it holds, and its author is quarantined from now on."""
        if proof.node_id in self._quarantined or not proof.verify(self._roster):
            return False
        self._convict(proof)
        return True

    def take(self, vouch: Vouch) -> bool:
        """A member says that it had taken an update of an author quarantined since. True: its word counts; send the update again."""
        if vouch.hash in self._exempt:
            return True
        if self.trust(vouch.node_id) == 0 or not vouch.verify(self._roster):
            return False
        self._exempt_one(vouch.hash)
        return True

    def adopt(self, envelopes: Iterable[Envelope]) -> int:
        """Take envelopes as known without their past: the state that they led to was copied whole. Returns how many were taken.

        Authors, signatures and conflicts are judged as ever. Call drain() afterwards.
        """
        taken = 0
        owners: dict[tuple[str, str], None] = {}
        for envelope in sorted(envelopes, key=lambda one: (one.owner, one.replica, one.counter)):
            if not self._knows(envelope, envelope.dep) and not self._refusal(envelope, False):
                if self._missing(envelope):
                    self._store.raise_floor(*envelope.owner, envelope.replica, envelope.previous)
                taken += self._place(envelope, b"", whole=True).joins
                owners[envelope.owner] = None
        for owner in owners:
            self._pending.release(*owner)
        return taken

    def inspect(self, envelope: Envelope) -> Admission:
        """Judge an update that comes by repair: ACCEPT, EQUIVOCATION or REJECT. What stands before it is not asked for.

        Authors, signatures, and contradictions of what is kept are judged as ever. It is kept itself where nothing before it is missing.
        """
        if self._store.has(*envelope.owner, envelope.replica, envelope.counter, envelope.hash):
            return _ACCEPT
        reason = self._refusal(envelope, False)
        if reason:
            return Admission(Kind.REJECT, reason)
        rival = self._rival(envelope)
        if rival is not None and not conflict(rival, envelope):
            return Admission(Kind.REJECT, Reason.FOREIGN_REPLICA)
        proof = self._contradiction(envelope, rival)
        if not self._knows(envelope, envelope.dep) and not self._missing(envelope):
            self._store.put(row_of(envelope))
            self._pending.arrived(envelope.hash)
        return Admission(Kind.EQUIVOCATION, proof=proof) if proof else _ACCEPT

    def replace_roster(self, roster: Roster) -> None:
        """Put a newer roster in force. A quarantine ends where its author has another key, for the proof is of the old one.

        Raises FieldInvalid where the version does not grow.
        """
        check_successor(self._roster, roster)
        self._roster = roster
        self._quarantined.clear()
        self._load_proofs()

    def _load_proofs(self) -> None:
        for proof in map(Proof.from_bytes, self._store.proofs()):
            if proof.verify(self._roster):
                self._quarantined[proof.node_id] = proof
                self._exempt_one(proof.one.hash)
                self._exempt_one(proof.other.hash)

    def _refusal(self, envelope: Envelope, verified: bool) -> Reason | None:
        """Cheapest first, and nothing but the signature costs anything: who is not on the roster cannot make us check one."""
        author = self._roster.authors.get(envelope.node_id)
        if author is None:
            return Reason.UNKNOWN_AUTHOR
        if author.trust == 0:
            return Reason.UNTRUSTED
        if self._limits.bound_replicas and not self._roster.owns(envelope.node_id, envelope.replica):
            return Reason.FOREIGN_REPLICA
        if envelope.node_id in self._quarantined and envelope.hash not in self._exempt:
            return Reason.QUARANTINED
        if not verified and not envelope.verify(author.key):
            return Reason.BAD_SIGNATURE
        if envelope.clock_ms > self._now_ms() + self._limits.future_ms:
            return Reason.FUTURE
        return None if envelope.previous < envelope.counter else Reason.NOT_FORWARD

    def _place(self, envelope: Envelope, payload: bytes, *, whole: bool = False) -> Admission:
        """Where the update stands in its chain and in what its author knew. whole: nothing before it is waited for."""
        rival = self._rival(envelope)
        if rival is not None and not conflict(rival, envelope):
            return Admission(Kind.REJECT, Reason.FOREIGN_REPLICA)
        exempt = envelope.hash in self._exempt
        if rival is None and not exempt and not whole and self._forgotten(envelope):
            return Admission(Kind.REJECT, Reason.FORGOTTEN)
        proof = self._contradiction(envelope, rival)
        missing = () if whole else self._missing(envelope)
        kind = Kind.EQUIVOCATION if proof else Kind.PARK if missing else Kind.ACCEPT
        if missing:
            for dep in missing:
                self._exempt_one(dep.hash)
            self._pending.add(envelope, payload, missing)
        else:
            self._store.put(row_of(envelope))
            self._pending.arrived(envelope.hash)
        return _ACCEPT if kind is Kind.ACCEPT else Admission(kind, missing=missing, proof=proof)

    def _contradiction(self, envelope: Envelope, rival: Envelope | None) -> Proof | None:
        """Convicts the author where a kept or a parked envelope contradicts this one: both, so that the order of arrival is no matter."""
        if envelope.node_id in self._quarantined:
            return None
        rival = rival or self._pending.rival(envelope)
        if rival is None:
            return None
        proof = Proof(rival, envelope)
        self._convict(proof)
        return proof

    def _knows(self, envelope: Envelope, dep: Dep) -> bool:
        """Whether an update of this owner is here, or so old that it must have been."""
        store, owner = self._store, envelope.owner
        return store.has(*owner, dep.replica, dep.counter, dep.hash) or dep.counter <= store.floor(*owner, dep.replica)

    def _missing(self, envelope: Envelope) -> tuple[Dep, ...]:
        before = Dep(envelope.replica, envelope.previous, envelope.previous_hash)
        named = envelope.deps if before.hash == NO_HASH else (before, *envelope.deps)
        return tuple([dep for dep in named if not self._knows(envelope, dep)])

    def _rival(self, envelope: Envelope) -> Envelope | None:
        """A kept envelope of the same chain that contradicts this one."""
        place = (*envelope.owner, envelope.replica)
        row = self._store.above(*place, envelope.previous)
        if row is not None and row.previous < envelope.counter:
            return Envelope.from_bytes(row.envelope)
        first = envelope.previous_hash == NO_HASH
        if first or not self._store.has(*place, envelope.previous, envelope.previous_hash):
            row = self._store.above(*place, 0 if first else envelope.previous - 1)
            other = Envelope.from_bytes(row.envelope) if row else None
            if other is not None and (conflict(other, envelope) or other.node_id != envelope.node_id):
                return other
        return None

    def _forgotten(self, envelope: Envelope) -> bool:
        """Whether it branches off before what is remembered: a lie, or a store that lost its past, and no telling which."""
        floor = self._store.floor(*envelope.owner, envelope.replica)
        return envelope.previous < floor or (envelope.previous_hash == NO_HASH and floor > 0)

    def _convict(self, proof: Proof) -> None:
        self._quarantined[proof.node_id] = proof
        self._store.put_proof(proof.node_id, proof.to_bytes())
        self._exempt_one(proof.one.hash)
        self._exempt_one(proof.other.hash)

    def _exempt_one(self, hashed: bytes) -> None:
        self._exempt.pop(hashed, None)
        self._exempt[hashed] = None
        if len(self._exempt) > self._limits.exempt:
            del self._exempt[next(iter(self._exempt))]


def verify_many(roster: Roster, envelopes: Sequence[Envelope], pool: Executor | None = None, parts: int = 1) -> list[bool]:
    """Whether each envelope is signed by the author that it names, in their order; False for unknown authors.

    pool, parts: checked in so many parts at once. OpenSSL runs without the interpreter's lock, so threads help.
    """
    if pool is None or parts <= 1 or len(envelopes) < 2 * parts:
        return _verify(roster, envelopes)
    size = -(-len(envelopes) // parts)
    chunks = [envelopes[start : start + size] for start in range(0, len(envelopes), size)]
    return [good for chunk in pool.map(_verify, [roster] * len(chunks), chunks) for good in chunk]


def _verify(roster: Roster, envelopes: Sequence[Envelope]) -> list[bool]:
    authors = [(roster.authors.get(envelope.node_id), envelope) for envelope in envelopes]
    return [author is not None and envelope.verify(author.key) for author, envelope in authors]
