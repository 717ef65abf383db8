"""Signed updates: who changed an owner's traces, after what, and the hashes of what changed. One signature a job.

An envelope names the author's envelope before it and, by hash, what the author had joined of others, so the updates of an owner are a
hash graph: nobody but the author can add to a chain, nobody at all can change what stands in it, and two different envelopes that claim
the same place are proof that their author lied.
Source: M. Kleppmann, "Making CRDTs Byzantine fault tolerant", PaPoC 2022 (hash ids, dependencies by hash; any number of liars).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ndml.crdt.clock import CLOCK_LIMIT, physical_ms
from ndml.crdt.keys import SIGNATURE_BYTES, is_signed
from ndml.errors import FieldInvalid, RequestMalformed

HASH_BYTES = 32
LEAF_BYTES = 16
NO_HASH = bytes(HASH_BYTES)
MAX_TENANT_BYTES = 128  # as in the contract
MAX_USER_BYTES = 256  # as in the contract
MAX_NODE_ID_BYTES = 128  # as in the roster of members
MAX_DEPS = 64  # authors that wrote between two updates of one author: a handful of copies, and stores that were replaced meanwhile
MAX_ITEMS = 1 << 20  # an owner forgotten in one job: a million traces, as in the limits of a consolidation
MAX_POSITION = (1 << 63) - 1  # SQLite's integers are signed

_DOMAIN = b"ndml-update-1"  # what is signed here is valid nowhere else
_MAGIC = b"NDU1"
_FIXED = struct.Struct(">4sQQQQ32s32sIBHBB")
_DEP = struct.Struct(">QQ32s")
_PACKED_MAX = _FIXED.size + MAX_TENANT_BYTES + MAX_USER_BYTES + MAX_NODE_ID_BYTES + MAX_DEPS * _DEP.size
MAX_ENVELOPE_BYTES = _PACKED_MAX + SIGNATURE_BYTES
_TAG_BITS, _RANDOM_BITS = 31, 32


class Dep(NamedTuple):
    """An update by its place and hash: what `replica` wrote up to `counter` for the same owner."""

    replica: int
    counter: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an author says of one job on one owner, with its signature. Raises FieldInvalid where a field breaks its bound.

    tenant, user      whose memory
    node_id           author, a name on the roster
    replica           author's store, 1 .. 2^63-1
    previous, counter author's position before (0: none) and after, for this owner
    clock             hybrid clock of ndml.crdt.clock
    items_hash, items SHA-256 over the leaves of the job's records in order, and how many they are
    previous_hash     hash of the author's envelope at `previous`; 32 zero bytes in the first that it signed for this owner
    deps              newest updates of other authors that this author had joined, by replica, each replica once
    signature         64 bytes; empty: not signed yet
    canonical, hash   bytes that say all of the above but the signature, and their SHA-256: the envelope's identity
    """

    tenant: str
    user: str
    node_id: str
    replica: int
    previous: int
    counter: int
    clock: int
    items_hash: bytes
    items: int
    previous_hash: bytes = NO_HASH
    deps: tuple[Dep, ...] = ()
    signature: bytes = b""
    canonical: bytes = field(init=False, repr=False, compare=False)
    hash: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = _texts(self)
        _check_numbers(self)
        _check_deps(self)
        lengths = (len(self.deps), *(len(text) for text in texts))
        numbers = (self.replica, self.previous, self.counter, self.clock)
        head = _FIXED.pack(
            _MAGIC, *numbers, self.previous_hash, self.items_hash, self.items, lengths[1], lengths[2], lengths[3], lengths[0]
        )
        canonical = head + b"".join(texts) + b"".join([_DEP.pack(*dep) for dep in self.deps])
        object.__setattr__(self, "canonical", canonical)
        object.__setattr__(self, "hash", sha256(canonical).digest())

    @property
    def owner(self) -> tuple[str, str]:
        """(tenant, user)."""
        return self.tenant, self.user

    @property
    def dep(self) -> Dep:
        """How others name this envelope."""
        return Dep(self.replica, self.counter, self.hash)

    @property
    def clock_ms(self) -> int:
        """Author's time, milliseconds since 1970."""
        return physical_ms(self.clock)

    def sign(self, key: Ed25519PrivateKey) -> Envelope:
        """The same with the key's signature."""
        # Neither what is signed nor any bound depends on the signature: nothing is made or checked anew.
        signed = copy(self)
        object.__setattr__(signed, "signature", key.sign(_DOMAIN + self.hash))
        return signed

    def verify(self, public: Ed25519PublicKey) -> bool:
        """Whether the signature is of this key."""
        return len(self.signature) == SIGNATURE_BYTES and is_signed(public, self.signature, _DOMAIN + self.hash)

    def to_bytes(self) -> bytes:
        """Canonical bytes and signature in one, for stores and proofs."""
        if not self.signature:
            raise FieldInvalid("an envelope is stored signed: call sign() first", field="signature")
        return self.canonical + self.signature

    @staticmethod
    def from_bytes(data: bytes) -> Envelope:
        """Inverse of to_bytes. Raises RequestMalformed for any other bytes; the signature is not checked."""
        if len(data) <= SIGNATURE_BYTES:
            raise RequestMalformed(f"an envelope has more than {len(data)} bytes: send canonical bytes and signature", field="envelope")
        return Envelope.parse(data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:])

    @staticmethod
    def parse(canonical: bytes, signature: bytes) -> Envelope:
        """From the two fields of an update on the wire. Raises RequestMalformed; the signature's length is checked, not what it signs.

        Only canonical bytes are taken, so an envelope has one form and one hash.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise RequestMalformed(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}", field="signature")
        try:
            envelope = _parse(canonical, signature)
        except (FieldInvalid, struct.error, UnicodeDecodeError) as error:
            raise RequestMalformed(f"these bytes are no envelope ({error}): send Envelope.canonical", field="envelope") from error
        if envelope.canonical != canonical:
            raise RequestMalformed("these bytes are not the canonical form of an envelope: send Envelope.canonical", field="envelope")
        return envelope


def leaf(item: bytes) -> bytes:
    """Hash of one record's canonical bytes. 16 bytes."""
    return blake2b(item, digest_size=LEAF_BYTES).digest()


def items_hash(leaves: Sequence[bytes]) -> bytes:
    """Envelope.items_hash of a job's leaves in order. 32 bytes."""
    return sha256(b"".join(leaves)).digest()


def check_items(envelope: Envelope, items: Sequence[bytes]) -> None:
    """Raises FieldInvalid unless these are all records of the job, in order, as their author hashed them."""
    check_leaves(envelope, [leaf(item) for item in items])


def check_some(envelope: Envelope, leaves: Sequence[bytes], items: Mapping[int, bytes]) -> None:
    """As check_items where only some records travel: `leaves` are all of the job's, `items` are records by their index among them."""
    check_leaves(envelope, leaves)
    for index, item in items.items():
        if not 0 <= index < len(leaves) or leaf(item) != leaves[index]:
            raise FieldInvalid(f"record {index} is not what node {envelope.node_id!r} signed: fetch it again", field=f"records[{index}]")


def check_leaves(envelope: Envelope, leaves: Sequence[bytes]) -> None:
    """Raises FieldInvalid unless these are the leaves that the envelope names."""
    # Leaves of another length could be cut at other places and give the same hash.
    whole = len(leaves) == envelope.items and all(len(one) == LEAF_BYTES for one in leaves)
    if not whole or items_hash(leaves) != envelope.items_hash:
        raise FieldInvalid(f"the records are not what node {envelope.node_id!r} signed: fetch them again", field="records")


def replica_number(node_id: str, random: int) -> int:
    """Number of a new store of this node: 31 bits of the name's hash, 32 random ones. 1 .. 2^63-1.

    random: 32 bits, not 0. Names stand on the roster, so a member cannot write under the numbers of another one.
    """
    if not 1 <= random < 1 << _RANDOM_BITS:
        raise FieldInvalid(f"give 1 to 2^{_RANDOM_BITS}-1, not {random}", field="random")
    return replica_tag(node_id) << _RANDOM_BITS | random


def replica_tag(node_id: str) -> int:
    """What all replica numbers of a node have in their upper bits. 31 bits."""
    digest = blake2b(node_id.encode(), digest_size=4, person=b"ndml-replica-1").digest()
    return int.from_bytes(digest, "big") >> (32 - _TAG_BITS)


def owns_replica(node_id: str, replica: int) -> bool:
    """Whether the number was made by replica_number for this node."""
    return replica >> _RANDOM_BITS == replica_tag(node_id)


def conflict(one: Envelope, other: Envelope) -> bool:
    """Whether no honest author signs both: two envelopes of one chain that cover the same positions, a link past the other, two beginnings.

    A chain's envelopes cover (previous, counter] without overlap, `previous_hash` is the hash of the one that ends at `previous`, and
    only the first one names none.
    """
    same_chain = one.owner == other.owner and one.replica == other.replica and one.node_id == other.node_id
    if not same_chain or one.hash == other.hash:
        return False
    if one.previous < other.counter and other.previous < one.counter:
        return True
    if one.previous_hash == other.previous_hash == NO_HASH:
        return True
    first, second = sorted((one, other), key=lambda envelope: envelope.counter)
    return second.previous == first.counter and second.previous_hash != first.hash


def _texts(envelope: Envelope) -> tuple[bytes, bytes, bytes]:
    try:
        tenant, user, node_id = envelope.tenant.encode(), envelope.user.encode(), envelope.node_id.encode()
    except UnicodeEncodeError as error:
        raise FieldInvalid(f"text that UTF-8 can say, no lone surrogates ({error.reason})", field="user") from error
    if len(tenant) > MAX_TENANT_BYTES:
        raise FieldInvalid(f"at most {MAX_TENANT_BYTES} bytes, not {len(tenant)}", field="tenant")
    if len(user) > MAX_USER_BYTES:
        raise FieldInvalid(f"at most {MAX_USER_BYTES} bytes, not {len(user)}", field="user")
    if not 0 < len(node_id) <= MAX_NODE_ID_BYTES:
        raise FieldInvalid(f"1 to {MAX_NODE_ID_BYTES} bytes, not {len(node_id)}", field="node_id")
    return tenant, user, node_id


def _check_numbers(envelope: Envelope) -> None:
    if not 1 <= envelope.replica <= MAX_POSITION:
        raise FieldInvalid("1 to 2^63-1", field="replica")
    if not 0 <= envelope.previous <= MAX_POSITION:
        raise FieldInvalid("0 to 2^63-1", field="previous")
    if not 1 <= envelope.counter <= MAX_POSITION:
        raise FieldInvalid("1 to 2^63-1", field="counter")
    if not 0 <= envelope.clock < CLOCK_LIMIT:
        raise FieldInvalid("63 bits: milliseconds << 16 | counter", field="clock")
    if not 0 <= envelope.items <= MAX_ITEMS:
        raise FieldInvalid(f"0 to {MAX_ITEMS} records: split the job", field="items")
    if len(envelope.items_hash) != HASH_BYTES or len(envelope.previous_hash) != HASH_BYTES:
        raise FieldInvalid(
            f"a hash has {HASH_BYTES} bytes", field="previous_hash" if len(envelope.items_hash) == HASH_BYTES else "items_hash"
        )
    if envelope.previous == 0 and envelope.previous_hash != NO_HASH:
        raise FieldInvalid("nothing stands before position 0: leave the hash zero", field="previous_hash")
    if len(envelope.signature) not in (0, SIGNATURE_BYTES):
        raise FieldInvalid(f"a signature has {SIGNATURE_BYTES} bytes", field="signature")


def _check_deps(envelope: Envelope) -> None:
    if len(envelope.deps) > MAX_DEPS:
        raise FieldInvalid(f"at most {MAX_DEPS}, not {len(envelope.deps)}: name the newest", field="deps")
    before = 0
    for index, (replica, counter, hashed) in enumerate(envelope.deps):
        if not before < replica <= MAX_POSITION or replica == envelope.replica:
            raise FieldInvalid("other replicas, in rising order, each once", field=f"deps[{index}].replica")
        if not 1 <= counter <= MAX_POSITION or len(hashed) != HASH_BYTES:
            raise FieldInvalid(f"a position from 1 and a hash of {HASH_BYTES} bytes", field=f"deps[{index}]")
        before = replica


def _parse(canonical: bytes, signature: bytes) -> Envelope:
    """Raises struct.error, UnicodeDecodeError, FieldInvalid. Lengths that disagree with the bytes show in the canonical form."""
    magic, replica, previous, counter, clock, previous_hash, hashed, items, tenant, user, node_id, deps = _FIXED.unpack_from(canonical)
    if magic != _MAGIC or len(canonical) > _PACKED_MAX:
        raise FieldInvalid("another format or a newer version", field="envelope")
    after_tenant = _FIXED.size + tenant
    after_user = after_tenant + user
    after_node = after_user + node_id
    return Envelope(
        tenant=canonical[_FIXED.size : after_tenant].decode(),
        user=canonical[after_tenant:after_user].decode(),
        node_id=canonical[after_user:after_node].decode(),
        replica=replica,
        previous=previous,
        counter=counter,
        clock=clock,
        items_hash=hashed,
        items=items,
        previous_hash=previous_hash,
        deps=tuple([Dep(*_DEP.unpack_from(canonical, after_node + index * _DEP.size)) for index in range(deps)]),
        signature=signature,
    )
