"""What is remembered of each author's chain: a bounded number of signed envelopes for each owner and store. The caller keeps it on disk.

`floor` is the largest position whose envelope was let go: what lies at or below it cannot be told from a repetition any more.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.crdt.envelope import MAX_DEPS, NO_HASH, Dep, Envelope, items_hash
from ndml.errors import FieldInvalid

KEEP = 8
"""Envelopes kept of a chain: a liar's second version must come within so many updates to be provable; some 400 bytes each."""


class Row(NamedTuple):
    """One admitted envelope. Sorted by position, then hash: rows of a chain that forked stand beside each other."""

    tenant: str
    user: str
    replica: int
    counter: int
    hash: bytes
    previous: int
    envelope: bytes


class ChainStore(Protocol):
    """Rows and proofs, kept by the caller: SQLite, in the transaction that joins the records, or memory in tests."""

    def has(self, tenant: str, user: str, replica: int, counter: int, hashed: bytes) -> bool:
        """Whether this row is kept."""
        ...

    def above(self, tenant: str, user: str, replica: int, counter: int) -> Row | None:
        """The kept row of the chain with the smallest (counter, hash) whose counter is larger than this one."""
        ...

    def floor(self, tenant: str, user: str, replica: int) -> int:
        """Largest counter of the chain that was kept once; 0 where nothing was let go."""
        ...

    def put(self, row: Row) -> None:
        """Keep a row, let go of the oldest beyond the bound and raise the floor to the largest counter among them."""
        ...

    def heads(self, tenant: str, user: str) -> Sequence[Row]:
        """Of each chain of the owner the row with the largest (counter, hash), the chain that was written last first."""
        ...

    def raise_floor(self, tenant: str, user: str, replica: int, counter: int) -> None:
        """Let the floor be at least this; rows stay."""
        ...

    def proofs(self) -> Sequence[bytes]:
        """Proofs kept, one an author."""
        ...

    def put_proof(self, node_id: str, proof: bytes) -> None:
        """Keep the proof against an author, in place of an older one."""
        ...


def row_of(envelope: Envelope) -> Row:
    """The row of a signed envelope."""
    return Row(envelope.tenant, envelope.user, envelope.replica, envelope.counter, envelope.hash, envelope.previous, envelope.to_bytes())


@dataclass(slots=True)
class _Chain:
    rows: list[Row] = field(default_factory=list)
    floor: int = 0


class MemoryChainStore:
    """A ChainStore in memory, for tests and simulations. keep: rows of each chain; chains are not bounded, as owners are not."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._owners: dict[tuple[str, str], dict[int, _Chain]] = {}
        self._proofs: dict[str, bytes] = {}

    def has(self, tenant: str, user: str, replica: int, counter: int, hashed: bytes) -> bool:
        chain = self._find(tenant, user, replica)
        at = bisect_left(chain.rows, (counter, hashed), key=_place)
        return at < len(chain.rows) and _place(chain.rows[at]) == (counter, hashed)

    def above(self, tenant: str, user: str, replica: int, counter: int) -> Row | None:
        rows = self._find(tenant, user, replica).rows
        at = bisect_left(rows, counter + 1, key=lambda row: row.counter)
        return rows[at] if at < len(rows) else None

    def floor(self, tenant: str, user: str, replica: int) -> int:
        return self._find(tenant, user, replica).floor

    def put(self, row: Row) -> None:
        chain = self._make(row.tenant, row.user, row.replica)
        insort(chain.rows, row, key=_place)
        gone = chain.rows[: -self._keep]
        del chain.rows[: -self._keep]
        chain.floor = max([chain.floor, *(old.counter for old in gone)])

    def heads(self, tenant: str, user: str) -> Sequence[Row]:
        chains = self._owners.get((tenant, user), {})
        return [chain.rows[-1] for chain in reversed(chains.values()) if chain.rows]

    def raise_floor(self, tenant: str, user: str, replica: int, counter: int) -> None:
        chain = self._make(tenant, user, replica)
        chain.floor = max(chain.floor, counter)

    def proofs(self) -> Sequence[bytes]:
        return list(self._proofs.values())

    def put_proof(self, node_id: str, proof: bytes) -> None:
        self._proofs[node_id] = proof

    def rows(self) -> Iterable[Row]:
        """All rows."""
        return [row for chains in self._owners.values() for chain in chains.values() for row in chain.rows]

    def _find(self, tenant: str, user: str, replica: int) -> _Chain:
        return self._owners.get((tenant, user), {}).get(replica) or _Chain()

    def _make(self, tenant: str, user: str, replica: int) -> _Chain:
        chains = self._owners.setdefault((tenant, user), {})
        chains[replica] = chain = chains.pop(replica, None) or _Chain()  # last in the order of writing
        return chain


def _place(row: Row) -> tuple[int, bytes]:
    return row.counter, row.hash


class Signer:
    """Makes this store's envelopes.

    An envelope must be on disk, by `ChainStore.put` in the transaction of its job, before anybody sees it: an author that forgot what it
    signed signs another one for the same place, and convicts itself. A store that is copied or restored therefore gets a new number.
    """

    def __init__(self, key: Ed25519PrivateKey, node_id: str, replica: int, store: ChainStore) -> None:
        self.node_id = node_id
        self.replica = replica
        self._key = key
        self._store = store

    def seal(self, tenant: str, user: str, previous: int, counter: int, clock: int, leaves: Sequence[bytes]) -> Envelope:
        """The signed envelope of a job on an owner, after all that the store holds of it. `leaves`: envelope.leaf of each record in order.

        Raises FieldInvalid where `previous` is not our newest envelope's position: unsigned jobs lie between.
        """
        mine, deps = self._before(tenant, user)
        if mine is not None and mine.counter != previous:
            message = f"our newest envelope for this owner ends at {mine.counter}, not {previous}"
            raise FieldInvalid(f"{message}: give the store a new number after it ran unsigned", field="previous")
        envelope = Envelope(
            tenant=tenant,
            user=user,
            node_id=self.node_id,
            replica=self.replica,
            previous=previous,
            counter=counter,
            clock=clock,
            items_hash=items_hash(leaves),
            items=len(leaves),
            previous_hash=mine.hash if mine else NO_HASH,
            deps=deps,
        )
        return envelope.sign(self._key)

    def _before(self, tenant: str, user: str) -> tuple[Row | None, tuple[Dep, ...]]:
        """Our newest envelope, and others' that came after it: older ones are named by our own chain already."""
        deps: list[Dep] = []
        for row in self._store.heads(tenant, user):
            if row.replica == self.replica:
                return row, tuple(sorted(deps))
            if len(deps) < MAX_DEPS:
                deps.append(Dep(row.replica, row.counter, row.hash))
        return None, tuple(sorted(deps))
