"""Authors, their stores and an auditor, for tests of signed updates. Keys follow from names, so runs repeat."""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.crdt.audit import Auditor, Limits
from ndml.crdt.chain import MemoryChainStore, Signer
from ndml.crdt.envelope import NO_HASH, Dep, Envelope, items_hash, leaf, replica_number
from ndml.crdt.keys import public_bytes
from ndml.crdt.roster import Author, Roster

NOW_MS = 1_700_000_000_000
OWNER = ("acme", "anna")


def key_of(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def clock_at(ms: int) -> int:
    return ms << 16


def roster_of(*names: str, version: int = 1) -> Roster:
    return Roster(version, {name: Author(public_bytes(key_of(name))) for name in names})


def envelope_by(
    name: str,
    counter: int = 1,
    before: Envelope | None = None,
    *,
    previous: int | None = None,
    previous_hash: bytes | None = None,
    deps: tuple[Dep, ...] = (),
    ms: int = NOW_MS,
    text: bytes = b"a record",
    replica: int | None = None,
    key: str | None = None,
    owner: tuple[str, str] = OWNER,
) -> Envelope:
    """A signed envelope after `before`, with whatever a liar wants to change in it."""
    return Envelope(
        tenant=owner[0],
        user=owner[1],
        node_id=name,
        replica=replica_number(name, 7) if replica is None else replica,
        previous=(before.counter if before else 0) if previous is None else previous,
        counter=counter,
        clock=clock_at(ms),
        items_hash=items_hash([leaf(text)]),
        items=1,
        previous_hash=(before.hash if before else NO_HASH) if previous_hash is None else previous_hash,
        deps=deps,
    ).sign(key_of(key or name))


def auditor_of(*names: str, store: MemoryChainStore | None = None, limits: Limits | None = None) -> Auditor:
    return Auditor(roster_of(*names), lambda: NOW_MS, store if store is not None else MemoryChainStore(), limits)


def signer_of(name: str, store: MemoryChainStore) -> Signer:
    return Signer(key_of(name), name, replica_number(name, 7), store)
